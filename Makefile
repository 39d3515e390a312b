# The product in a few lines: a corpus becomes shards, a small model gives every sample its irreducible loss, and
# training spends its steps on what is learnable, worth learning and not yet learnt.
#
#   make demo                                      all of it on the built-in synthetic corpus, RHO-LOSS against uniform
#   make shards il train MANIFEST=… ROOT=… WORKSPACE=…   the same for a corpus of your own
#   make report [WORKSPACE=…]                      what was skipped, and why, as one HTML file in the workspace
#   make test                                      lint, types and tests

MANIFEST  ?= data_manifests/synthetic.toml
ROOT      ?=
WORKSPACE ?= workspaces/$(basename $(notdir $(MANIFEST)))
PYTHON    ?= python3
VENV      ?= .venv

RHO := $(VENV)/bin/rho
UV  := $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python
export RHO_WORKSPACE := $(WORKSPACE)
# Cached bytecode halves the start of every process that imports torch; some images switch the cache off.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo shards il train report query browser install test lint types clean
.NOTPARALLEL:

demo: shards il
	$(RHO) train --compare uniform,rho_loss
	$(RHO) explain reasons --run rho_loss

shards: install
	$(RHO) shards --manifest $(MANIFEST) $(if $(ROOT),--root $(ROOT))

il: install
	$(RHO) il train
	$(RHO) il score

train: install
	$(RHO) train

report: install
	$(RHO) report --output $(WORKSPACE)/report.html

install: $(VENV)/.installed

# uv resolves nothing here: requirements.lock pins every version. torch and torchvision come from the same index,
# so that their builds match.
$(VENV)/.installed: requirements.lock pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: apt install python3-venv)"; \
		rm -rf $(VENV); exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(UV) -r requirements.lock
	$(UV) --no-deps --no-build-isolation --editable .
	@touch $@

# Debian's Chromium, for the tests of the report, which are skipped without one. Needs root.
browser:
	@command -v chromium >/dev/null || { \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }

test: lint types
	$(VENV)/bin/python -m pytest -n auto

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The rooms lie at the top level; the type checker wants to see them as they are imported.
types: install
	@mkdir -p build/types/rhostream
	@ln -sfn $(CURDIR)/rhostream/*.py $(CURDIR)/rhostream/py.typed build/types/rhostream/
	@for room in loaders selection pipeline cli; do ln -sfn $(CURDIR)/$$room build/types/rhostream/$$room; done
	MYPYPATH=build/types $(VENV)/bin/mypy --package rhostream

clean:
	rm -rf build $(VENV)
