from .decode import ImageSpec as ImageSpec, ReadOptions as ReadOptions, TextSpec as TextSpec
from .index import CorpusMetadata as CorpusMetadata
from .reference import Prefilter as Prefilter
from .storage import Workspace as Workspace
from .stream import (
    Batch as Batch,
    CandidateStream as CandidateStream,
    EvaluationStream as EvaluationStream,
    MixedStream as MixedStream,
    Order as Order,
    SuperBatch as SuperBatch,
    with_il as with_il,
)
