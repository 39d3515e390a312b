"""What the report shows, asked from the tables of the workspace: aggregates, and a bounded number of samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from rhostream.errors import ConfigError, Remedy, Stage
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Metric
from rhostream.pipeline.explain import Copies, find_copies, named_clusters, sample_reasons, why_doubted
from rhostream.pipeline.il import default_il_model, trained_models
from rhostream.pipeline.report import questions
from rhostream.pipeline.report.pictures import Thumbnail, thumbnails
from rhostream.pipeline.report.runs import ReportedRun, reported_runs
from rhostream.pipeline.sql import VIEWS, reading, run_interruptibly

MEMORY: Final = "2GiB"  # DuckDB's; with Python, Arrow and the page the whole stays within 4 GiB
PICTURES: Final = 24  # shown of a gallery before a filter is set
COPIES: Final = 24  # pairs that are shown
_PER_GROUP: Final = 6  # further ones of a gallery, of each class and of each reason
_MOST_BY_CLASS: Final = 96  # of these, over all classes

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Rows, and the SQL that `rho query` answers with them."""

    sql: str
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that the page is made of.

    Attributes:
        run: the run that the pictures are about: its name, or None.
        il_model: whose irreducible losses and predicted labels they show, or None.
        runs: those that are compared.
        answers: by the name of the question: reasons, classes (of pairs clusters, or one row of all), map (not of
            pairs), histogram, confusion (of a classification), time, metrics, rejects, examples.
        galleries: by name, see `questions.GALLERIES`; "copies" where these were looked for.
        pictures: by key.
        truth: does the corpus know the true labels, or which captions are wrong?
        clustering: name of the clusters of pairs, or None.
        doubt: why the IL model is too weak to call labels wrong by; None where it is not known to be.
        copies: images that look the same; None where nobody has looked.
    """

    corpus: CorpusMetadata
    run: ReportedRun | None
    il_model: str | None
    runs: tuple[ReportedRun, ...]
    answers: Mapping[str, Answer]
    galleries: Mapping[str, Answer]
    pictures: Mapping[str, Thumbnail] = field(repr=False)
    truth: bool
    clustering: str | None
    copies: Copies | None
    doubt: str | None = None

    def right(self, class_name: str | None = None) -> float | None:
        """Share of the labels, of all or of one class, that the IL model predicts where it never saw the sample.

        Of pairs: of the images to which no other caption is more similar than the own.
        """
        rows = [row for row in self.answers["classes"].rows if class_name in (None, row["class"])]
        judged = sum(row["judged"] or 0 for row in rows)
        return sum(row["agreed"] or 0 for row in rows) / judged if judged else None


def gather(
    workspace: Workspace,
    run_names: Sequence[str] = (),
    il_model: str = "",
    *,
    near_duplicates: bool = False,
    metric: Metric | None = None,
) -> ReportData:
    """Ask all questions and read the pictures.

    Args:
        run_names: the runs to compare, all where empty; the pictures are about the first of them that scored its
            candidates.
        il_model: whose table to show; by default that of this run, else the only one.
        near_duplicates: look through the training images for copies.
        metric: what runs are compared by; None for the manifest's, see `TrainConfig`.

    Raises:
        ConfigError: no such run or IL model, or no images to look through.
        WorkspaceError: no workspace, or files in it that cannot be read.
    """
    corpus = CorpusMetadata.read(workspace)
    copies = find_copies(workspace, corpus, pairs=COPIES) if near_duplicates else None
    with reading(workspace, memory=MEMORY) as reader:
        reader.prepare(VIEWS.keys())
        connection = reader.connection
        metrics = Answer(sql=questions.metrics(), rows=_rows(connection, questions.metrics()))
        metric = metric or corpus.manifest.get("train", {}).get("metric", "auto")
        runs = reported_runs(workspace, run_names, metrics.rows, metric)
        subject = _subject(connection, runs)
        model = _il_model(workspace, corpus, subject, il_model)
        task, clustering = corpus.task, named_clusters(workspace, subject.name if subject else None)
        reasons = sample_reasons(subject.name if subject else "", model, task=task)
        create = f"CREATE TEMP TABLE sample_reasons AS {reasons}"
        run_interruptibly(connection, lambda: connection.execute(create))
        doubt = None
        if model is not None and task == "classification":
            doubt = why_doubted(lambda sql: connection.sql(sql).to_arrow_table(), model)
        known = {row["column_name"] for row in _rows(connection, "DESCRIBE samples")}
        truth = questions.TRUTH[task] in known

        def ask(question: str) -> Answer:
            sql = question
            if "sample_reasons" in question:
                rest = f", {question.removeprefix('WITH ')}" if question.startswith("WITH ") else f"\n{question}"
                sql = f"WITH sample_reasons AS (\n{reasons}\n){rest}"
            return Answer(sql=sql, rows=_rows(connection, question))

        asked = {
            "reasons": questions.reasons(),
            "classes": questions.classes(truth, task, clustering),
            "histogram": questions.il_histogram(task),
            "rejects": questions.rejects(),
            "examples": questions.rejects_examples(),
        }
        if task != "pairs":  # whose losses are among other captions than their irreducible losses
            asked["map"] = questions.loss_il_map()
        if task == "classification":
            asked["confusion"] = questions.confusion()
        if subject is not None:
            asked["time"] = questions.over_time(subject.name)
        answers = {name: ask(question) for name, question in asked.items()} | {"metrics": metrics}
        each = min(_PER_GROUP, _MOST_BY_CLASS // max(1, len(corpus.classes)))
        galleries = {
            name: ask(questions.gallery(name, most=PICTURES, per_class=each, per_reason=_PER_GROUP, task=task))
            for name in questions.GALLERIES
        }
        if copies is not None and copies.pairs:
            galleries["copies"] = ask(questions.chosen(copies.keys, task))
    shards = {shard.name: shard for shard in corpus.shards}
    samples = [row for gallery in galleries.values() for row in gallery.rows]
    return ReportData(
        corpus=corpus,
        run=subject,
        il_model=model,
        runs=tuple(runs),
        answers=answers,
        galleries=galleries,
        pictures=thumbnails(workspace, shards, samples, corpus.input_field),
        truth=truth,
        clustering=clustering,
        copies=copies,
        doubt=doubt,
    )


def _subject(connection: duckdb.DuckDBPyConnection, runs: Sequence[ReportedRun]) -> ReportedRun | None:
    """The first run that scored candidates against irreducible losses, else that scored any, else that drew any."""
    facts = {
        row["run"]: (row["against_il"], row["scored"])
        for row in _rows(
            connection,
            "SELECT run, bool_or(latest_loss IS NOT NULL AND il IS NOT NULL) AS against_il, "
            "bool_or(scored > 0) AS scored FROM history GROUP BY run",
        )
    }
    drawn = [run for run in runs if run.name in facts]
    return max(drawn, key=lambda run: facts[run.name], default=None)


def _il_model(workspace: Workspace, corpus: CorpusMetadata, run: ReportedRun | None, named: str) -> str | None:
    known = trained_models(workspace)
    if named:
        if named not in known:
            raise ConfigError(
                f"--il {named}: workspace {workspace.location!r} has no such IL model (there are: "
                f"{', '.join(known) or 'none'}); name one of these, or",
                Remedy(Stage.IL_TRAIN, workspace.location, {"name": named}),
            )
        return named
    if run is not None and run.il is not None:
        # What a run joined from elsewhere, a Parquet of the user's, tells no predicted labels.
        return run.il if run.il in known else None
    return default_il_model(workspace, corpus) if known else None


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    rows: list[Row] = run_interruptibly(connection, lambda: connection.sql(sql).to_arrow_table()).to_pylist()
    return rows
