"""What a question is scope about."""

from dataclasses import dataclass

from rhostream.pipeline.explain.history import ALL_STEPS, Steps
from rhostream.pipeline.sql import quote


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A question's parameters, resolved: every name is one that the workspace has.

    Attributes:
        run, other: names of runs; "" where none is meant.
        il_model: None where there is none.
        class_name, split: only samples of these; None for all.
        by: column of `samples` to group by.
        steps: only these of the run.
        has_clean_label: does `samples` have the column `clean_label`?
        clustering: name of the clusters that samples are told by; None for none.
        task: of the corpus, which says what the columns of labels are.
        has_texts: does it have the columns of texts, `rhostream.schema.TEXT`?
        limit: rows to return; None for all.
        several_ranks: was one of the runs written by several processes?
    """

    run: str = ""
    other: str = ""
    il_model: str | None = None
    class_name: str | None = None
    split: str | None = None
    by: str = "class"
    steps: Steps = ALL_STEPS
    has_clean_label: bool = False
    task: str = "classification"
    has_texts: bool = False
    clustering: str | None = None
    limit: int | None = None
    several_ranks: bool = True

    @property
    def multi_label(self) -> bool:
        """Does `samples` have lists, `labels` and `classes`, in place of `label` and `class`?"""
        return self.task == "multi_label"

    @property
    def label_column(self) -> str:
        """Of `samples`: a number, or a list of them; of pairs what is the same of equal captions."""
        return {"classification": "label", "multi_label": "labels", "pairs": "text_hash"}[self.task]

    @property
    def class_column(self) -> str:
        """Of `samples`: a name, or a list of them; of pairs the caption."""
        return {"classification": "class", "multi_label": "classes", "pairs": "text"}[self.task]

    @property
    def likeness(self) -> str:
        """Further columns of `sample_reasons`, of pairs: what the reference model says of their likeness."""
        return ", similarity, beaten_by" if self.task == "pairs" else ""

    @property
    def shown_columns(self) -> str:
        """Of `samples`, what a reader knows a sample by."""
        own = "excerpt, source" if self.has_texts else "source"
        return own if self.clustering is None else f"cluster, {own}"

    @property
    def samples(self) -> str:
        """What to read in place of the view `samples` for their clusters, too."""
        if self.clustering is None:
            return "samples"
        told = f"SELECT key, cluster FROM clusters WHERE clustering = {quote(self.clustering)}"
        # A corpus may have a column of this name.
        own = "SELECT COLUMNS(lambda name: name <> 'cluster') FROM samples"
        return f"(SELECT * FROM ({own}) LEFT JOIN ({told}) USING (key))"

    @property
    def content_column(self) -> str:
        """Of `samples`: equal for samples of equal content, of texts without regard to white space and case."""
        return "normalized_hash" if self.has_texts else "content_hash"

    @property
    def of_class(self) -> str:
        """An SQL condition on the class column: a multi-label sample is of each of its classes."""
        if self.class_name is None:
            return "true"
        name = quote(self.class_name)
        return f"list_contains(classes, {name})" if self.multi_label else f"class = {name}"

    @property
    def of_split(self) -> str:
        """An SQL condition on a column `split`."""
        return "true" if self.split is None else f"split = {quote(self.split)}"

    @property
    def limited(self) -> str:
        return "" if self.limit is None else f"\nLIMIT {self.limit:d}"


def indented(sql: str) -> str:
    return "\n".join(f"  {line}" for line in sql.splitlines())


def identifier(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'
