from .batch import Batch as Batch
from .candidate_stream import CandidateStream as CandidateStream
from .candidate_table import CandidateTable as CandidateTable
from .evaluation_stream import EvaluationStream as EvaluationStream
from .exchange import Exchange as Exchange
from .mixture import MixedStream as MixedStream
from .order import Order as Order
from .ranks import Chunks as Chunks, Ranks as Ranks, distributed as distributed, given_ranks as given_ranks
from .stored_rows import StoredRows as StoredRows
from .super_batch import (
    Part as Part,
    SuperBatch as SuperBatch,
    Tolerance as Tolerance,
    model_inputs as model_inputs,
    raw_texts as raw_texts,
    shared_reader as shared_reader,
)
from .super_batch_stream import SuperBatchStream as SuperBatchStream, read_options_here as read_options_here
from .targets import labels_of as labels_of, make_targets as make_targets
from .webdataset_stage import with_il as with_il
