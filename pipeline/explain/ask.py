"""Ready questions over the tables of a workspace: `rho explain`."""

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from rhostream.errors import ConfigError, Remedy, Stage
from rhostream.loaders.index import CorpusMetadata, clusters_file, read_clusters_card
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.explain import corpus, rates, samples
from rhostream.pipeline.explain.contradictions import why_doubted
from rhostream.pipeline.explain.copies import find_copies
from rhostream.pipeline.explain.history import ALL_STEPS, Steps
from rhostream.pipeline.explain.mismatched import mismatched
from rhostream.pipeline.explain.scope import Scope
from rhostream.pipeline.explain.titles import QUESTIONS
from rhostream.pipeline.jobs import read_run_facts
from rhostream.pipeline.sql import Reader, reading

_SQL: Final[dict[str, Callable[[Scope], str]]] = {
    "reasons": samples.reasons,
    "skipped": samples.skipped,
    "mislabeled": samples.mislabeled,
    "redundant": samples.redundant,
    "classes": rates.classes,
    "il": rates.il,
    "run": rates.run,
    "duplicates": corpus.duplicates,
    "rejects": corpus.rejects,
    "diff": samples.diff,
}
#: Questions that the IL model alone can answer: a run is taken only where it is named.
_RUN_IS_OPTIONAL: Final = frozenset({"mislabeled"})
#: Questions that call labels wrong.
_VERDICTS: Final = frozenset({"mislabeled", "reasons", "skipped"})
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user narrows a question to; None where nothing was said.

    Attributes:
        run: name of the run; None for the only one.
        il: name of the IL model; None for the one that the run joined, else the only one.
        class_name, split, by, steps, limit: see `Scope`.
    """

    run: str | None = None
    il: str | None = None
    class_name: str | None = None
    split: str | None = None
    by: str | None = None
    steps: Steps = ALL_STEPS
    limit: int | None = None


def explain(workspace: Workspace | str, question: str, *runs: str, options: Options = Options()) -> pa.Table:
    """The answer to a ready question: `query` of `explanation`, and subject to the same confinement.

    Raises:
        ConfigError: see `explanation`.
        WorkspaceError: no workspace, or a file in it that cannot be read.
    """
    workspace = Workspace(workspace)
    _check_question(question, runs, options)
    with reading(workspace) as reader:
        return reader.ask(_explanation(reader, workspace, question, runs, options))


def explanation(workspace: Workspace | str, question: str, *runs: str, options: Options = Options()) -> str:
    """The SQL of a ready question, for `query`, or for any DuckDB with the views of the workspace.

    Args:
        question: one of `QUESTIONS`.
        runs: the two runs of the question "diff".

    Raises:
        ConfigError: an unknown question, run, IL model, class, split or column; several runs or IL models where none
            is named; an option that does not bear on the question.
    """
    workspace = Workspace(workspace)
    _check_question(question, runs, options)
    with reading(workspace) as reader:
        return _explanation(reader, workspace, question, runs, options)


def _explanation(reader: Reader, workspace: Workspace, question: str, runs: tuple[str, ...], options: Options) -> str:
    takes = QUESTIONS[question].takes
    known = reader.ask("FROM samples LIMIT 0").column_names
    task: str = "classification" if "label" in known else "pairs" if "text_hash" in known else "multi_label"
    multi_label = task == "multi_label"
    if multi_label and question == "mislabeled":
        raise ConfigError(
            "question 'mislabeled' compares the one label of each sample with the one that the IL model predicts, and "
            "the corpus is multi-label: ask 'reasons', 'skipped' or 'duplicates'"
        )
    clustering = named_clusters(workspace, options.run)
    if clustering is not None:
        known = [*known, "cluster"]
    if task == "pairs":
        options = _of_pairs(question, options, clustered=clustering is not None)
    scope = Scope(
        class_name=_one_of(reader, "class", options.class_name, "unnest(classes)" if multi_label else "class"),
        split=_one_of(reader, "split", options.split, "split"),
        by=_column(known, options.by, "classes" if multi_label else "class"),
        steps=_steps(options.steps),
        has_clean_label="clean_label" in known,
        task=task,
        clustering=clustering,
        has_texts="normalized_hash" in known,
        limit=options.limit,
    )
    if runs:
        first, other = (named_run(workspace, run) for run in runs)
        scope = replace(scope, run=first, other=other)
    elif "run" in takes and (options.run is not None or question not in _RUN_IS_OPTIONAL):
        scope = replace(scope, run=named_run(workspace, options.run))
    ranks = [len(workspace.names(f"runs/{run}/history", ".parquet")) for run in (scope.run, scope.other) if run]
    scope = replace(scope, several_ranks=max(ranks, default=0) > 1)
    if "il" in takes:
        required = question == "mislabeled"
        scope = replace(scope, il_model=named_il_model(workspace, options.il, scope.run, required=required))
    if question in _VERDICTS and scope.il_model is not None and task == "classification":
        doubt = why_doubted(reader.ask, scope.il_model)
        if doubt is not None:
            _LOG.warning("%s", doubt)
    if question == "copies":
        card = CorpusMetadata.read(workspace)
        splits = [scope.split] if scope.split else card.shards.splits
        found = find_copies(workspace, card, splits=splits)
        if found.looked_at < found.images or len(found.pairs) < found.found:
            _LOG.warning(
                "of %d images %d were compared, of %d pairs that look the same %d are told of",
                *(found.images, found.looked_at, found.found, len(found.pairs)),
            )
        return corpus.copies(scope, found.pairs)
    if task == "pairs" and question == "mislabeled":
        return mismatched(scope, has_truth="mismatched" in known)
    return _SQL[question](scope)


def _of_pairs(question: str, options: Options, *, clustered: bool) -> Options:
    """The options, with clusters in the place of classes; ConfigError where pairs are asked for by a class."""
    if options.class_name is not None:
        raise ConfigError("--class: image-text pairs have no classes; leave it out")
    if question != "classes" or options.by is not None:
        return options
    if not clustered:
        raise ConfigError(
            "question 'classes' of image-text pairs, which have none: make clusters, or name a column of samples with "
            "--by"
        )
    return replace(options, by="cluster")


def named_clusters(workspace: Workspace, run: str | None) -> str | None:
    """The clusters that the run was told candidates by, else the only ones, else None; those of these samples count."""
    written = [name for name in workspace.names("clusters") if workspace.exists(clusters_file(name))]
    if not written:
        return None
    fingerprint = CorpusMetadata.read(workspace).fingerprint
    known = [name for name in written if read_clusters_card(workspace, name).fingerprint == fingerprint]
    if run is not None and run in workspace.names("runs"):
        named = read_run_facts(workspace, run).get("config", {}).get("clusters")
        if named in known:
            return str(named)
    return known[0] if len(known) == 1 else None


def named_run(workspace: Workspace, name: str | None) -> str:
    """The run of this name, or the only one.

    Raises:
        ConfigError: there is none of the name, none at all, or several and none is named.
    """
    runs = [run for run in workspace.names("runs") if workspace.names(f"runs/{run}/history", ".parquet")]
    return _named(workspace, "run", "--run", runs, name, Stage.TRAIN)


def named_il_model(workspace: Workspace, name: str | None, run: str, *, required: bool) -> str | None:
    """The IL model of this name, else the one that the run joined, else the only one, else (not required) None.

    Raises:
        ConfigError: as for `named_run`.
    """
    models = [model for model in workspace.names("il") if workspace.names(f"il/{model}/scores", ".parquet")]
    if name is None and run:
        joined = read_run_facts(workspace, run).get("il")
        name = joined if joined in models else None
    if name is None and not models and not required:
        return None
    return _named(workspace, "IL model", "--il", models, name, Stage.IL_TRAIN, Stage.IL_SCORE)


def _named(workspace: Workspace, what: str, option: str, known: list[str], name: str | None, *stages: Stage) -> str:
    listed = ", ".join(known)
    if not known:
        remedies = (Remedy(stage, workspace.location) for stage in stages)
        raise ConfigError(f"workspace {workspace.location!r} has no {what} to ask about", *remedies)
    if name is None:
        if len(known) > 1:
            raise ConfigError(
                f"workspace {workspace.location!r} has {len(known)} {what}s: name one with {option}, of {listed}"
            )
        return known[0]
    if name not in known:
        raise ConfigError(
            f"workspace {workspace.location!r} has no {what} {name!r}{_hint(name, known)}: there are {listed}"
        )
    return name


def _check_question(question: str, runs: tuple[str, ...], options: Options) -> None:
    if question not in QUESTIONS:
        raise ConfigError(
            f"unknown question {question!r}{_hint(question, list(QUESTIONS))}: there are {', '.join(QUESTIONS)}"
        )
    title = QUESTIONS[question]
    if len(runs) != title.runs:
        named = ["--run RUN"] if "run" in title.takes else ["RUN"] * title.runs
        usage = " ".join(["rho explain", question, *named])
        raise ConfigError(f"question {question!r} got {len(runs)} runs, takes {title.runs} as arguments: `{usage}`")
    given = {
        "run": options.run,
        "il": options.il,
        "class": options.class_name,
        "split": options.split,
        "by": options.by,
        "steps": None if options.steps == ALL_STEPS else options.steps,
    }
    for name, value in given.items():
        if value is not None and name not in title.takes:
            takes = ", ".join(f"--{option}" for option in sorted(title.takes)) or "none of them"
            raise ConfigError(f"--{name} does not bear on question {question!r}, which takes {takes}: leave it out")
    if options.steps != ALL_STEPS and question in _RUN_IS_OPTIONAL and options.run is None:
        raise ConfigError(f"--steps without a run: name the run that question {question!r} is to look at with --run")


def _one_of(reader: Reader, option: str, value: str | None, expression: str) -> str | None:
    if value is None:
        return None
    found = reader.ask(f"SELECT DISTINCT {expression} AS name FROM samples ORDER BY name")
    known = found.column("name").to_pylist()
    if value not in known:
        raise ConfigError(f"--{option} {value!r}: no sample has it{_hint(value, known)}; there are {_listed(known)}")
    return value


def _column(known: list[str], name: str | None, usual: str) -> str:
    if name is not None and name not in known:
        raise ConfigError(f"--by {name!r}: samples have no such column{_hint(name, known)}; there are {_listed(known)}")
    return name or usual


def _steps(steps: Steps) -> Steps:
    first, last = steps
    if first is not None and last is not None and first > last:
        raise ConfigError(f"--steps {first}:{last}: the first step lies behind the last; give them the other way round")
    return steps


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
