# The product in a few lines: a corpus becomes shards, a small model gives every sample its irreducible loss, and
# training spends its steps on what is learnable, worth learning and not yet learnt.
#
#   make demo                                      all of it on the built-in synthetic corpus, selection against uniform
#   make demo-pairs                                the same of image-text pairs: drawn garments, 40% of the captions wrong
#   make demo-text                                 the same on texts: generated messages, half of them labeled wrongly
#   make shards il train MANIFEST=… ROOT=… WORKSPACE=…   the same for a corpus of your own
#   make report [WORKSPACE=…]                      what was skipped, and why, as one HTML file in the workspace
#   make test-fast                                 tests that train little; make test: lint, types, docs, all tests
#
# On a machine without a GPU, UV_TORCH_BACKEND=cpu before any of these installs the CPU builds of torch: 1.3 GB, not 5.7.

MANIFEST  ?= data_manifests/synthetic.toml
ROOT      ?=
WORKSPACE ?= workspaces/$(basename $(notdir $(MANIFEST)))
PYTHON    ?= python3
VENV      ?= .venv

RHO := $(VENV)/bin/rho
UV  := $(VENV)/bin/uv pip
export RHO_WORKSPACE := $(WORKSPACE)
# Cached bytecode halves the start of every process that imports torch; some images switch the cache off.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-pairs demo-text shards il train report query browser install install-dev trainers lock test test-fast lint types docs clean
.NOTPARALLEL:

demo: shards il
	$(RHO) train --compare uniform:prefilter=0:steps=1000:evaluate_every=100,learnable
	$(RHO) explain reasons --run learnable

# What a target sets holds for all that it needs, too.
demo-pairs: MANIFEST := data_manifests/synthetic_pairs.toml
demo-pairs: export RHO_WORKSPACE = $(WORKSPACE)
demo-pairs: shards il
	$(RHO) train --compare uniform,learnability:steps=180,jest:steps=180
	$(RHO) explain mislabeled --limit 20

demo-text: MANIFEST := data_manifests/synthetic_text.toml
demo-text: export RHO_WORKSPACE = $(WORKSPACE)
demo-text: shards il
	$(RHO) train --compare uniform:prefilter=0:steps=500,learnable
	$(RHO) explain reasons --run learnable

shards: install
	$(RHO) shards --manifest $(MANIFEST) $(if $(ROOT),--root $(ROOT))

il: install
	$(RHO) il train
	$(RHO) il score

train: install
	$(RHO) train

report: install
	$(RHO) report --output $(WORKSPACE)/report.html

# Two installs, each of what it runs: of the product, and of all extras with the tools that check them. A lock pins
# every version; torch and torchvision are resolved together, so that their builds match, and what only another build
# of torch needs is left out.
RUN_EXTRAS := report tensorboard torchvision
comma := ,

install: $(VENV)/.run
install-dev: $(VENV)/.develop

$(VENV)/.run: requirements/run.lock pyproject.toml | $(VENV)/bin/uv
	@command -v nvidia-smi >/dev/null || test -n "$$UV_TORCH_BACKEND" || \
		echo "No GPU here: UV_TORCH_BACKEND=cpu installs the CPU builds of torch, 1.3 GB rather than 5.7."
	$(UV) install --quiet --python $(VENV) --constraints $< --build-constraints $< --editable '.[$(subst $() ,$(comma),$(RUN_EXTRAS))]'
	@touch $@

$(VENV)/.develop: requirements/develop.lock pyproject.toml | $(VENV)/bin/uv
	$(UV) install --quiet --python $(VENV) --constraints $< --build-constraints $< --editable '.[all]' --group dev
	@touch $@

# torchtitan and DeepSpeed, which their tests are skipped without. DeepSpeed compiles a part of itself when it begins.
TRAINERS := .venv-trainers
trainers: | $(VENV)/bin/uv
	@test -x $(TRAINERS)/bin/python || $(VENV)/bin/uv venv --quiet --python $(VENV)/bin/python $(TRAINERS)
	$(UV) install --quiet --python $(TRAINERS) --editable . --group trainers

$(VENV)/bin/uv:
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: apt install python3-venv)"; \
		rm -rf $(VENV); exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements/run.lock)"

# Both locks hold for every Python that pyproject.toml allows, on every platform. UPGRADE=--upgrade moves all versions.
COMPILE := $(UV) compile --quiet --universal --no-header --no-annotate pyproject.toml $(UPGRADE)
lock: | $(VENV)/bin/uv
	$(COMPILE) $(RUN_EXTRAS:%=--extra=%) --group install --output-file requirements/run.lock
	$(COMPILE) --all-extras --group dev --constraints requirements/run.lock --output-file requirements/develop.lock

# Debian's Chromium, for the tests of the report, which are skipped without one. Needs root.
browser:
	@command -v chromium >/dev/null || { \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }

# Tests of a file run in one process: what they share is then made once. Files begin in the order that tests/conftest.py
# gives them. Slow tests often wait, for answers, timers and new processes: with them runs a process more than cores.
PYTEST := $(VENV)/bin/python -m pytest --dist loadfile --no-loadscope-reorder
MORE_THAN_CORES := $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) + 1)" 2>/dev/null || echo auto)

# The checks of types and docs, each a single process, run beside the tests; what they find comes last.
test: lint
	@mkdir -p build
	@$(MAKE) --no-print-directory types docs >build/checks.log 2>&1 & checks=$$!; \
		$(PYTEST) -n $(MORE_THAN_CORES); tested=$$?; \
		wait $$checks || { cat build/checks.log; exit 1; }; exit $$tested

test-fast: install-dev
	$(PYTEST) -n auto -m "not slow and not gpu and not real_data"

lint: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The rooms lie at the top level; the type checker wants to see them as they are imported.
types: install-dev
	@mkdir -p build/types/rhostream
	@ln -sfn $(CURDIR)/rhostream/*.py $(CURDIR)/rhostream/*.pyi $(CURDIR)/rhostream/py.typed build/types/rhostream/
	@for room in loaders selection pipeline cli; do ln -sfn $(CURDIR)/$$room build/types/rhostream/$$room; done
	$(VENV)/bin/mypy build/types/rhostream examples docs tests benchmarks/*.py benchmarks/loaders
	MYPYPATH=benchmarks/reproductions $(VENV)/bin/mypy benchmarks/reproductions

# The site, in build/site; a broken link or name fails. Its figures: python docs/render.py.
docs: types
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

clean:
	rm -rf build $(VENV) $(TRAINERS)
