"""The task that a corpus was made for."""

from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.reference import ContrastiveLoss
from rhostream.selection.tasks.classification import Classification
from rhostream.selection.tasks.multi_label import MultiLabel
from rhostream.selection.tasks.pairs import Pairs
from rhostream.selection.tasks.task import Task


def task_of(corpus: CorpusMetadata, loss: ContrastiveLoss = "sigmoid") -> Task:
    """Of its samples, with the task's own loss, of which pairs have two."""
    if corpus.task == "pairs":
        return Pairs(loss=loss)
    return MultiLabel() if corpus.task == "multi_label" else Classification()
