from .batch import Batch as Batch
from .candidate_stream import CandidateStream as CandidateStream
from .candidate_table import CandidateTable as CandidateTable
from .evaluation_stream import EvaluationStream as EvaluationStream
from .mixture import MixedStream as MixedStream
from .order import Order as Order
from .super_batch import SuperBatch as SuperBatch, Tolerance as Tolerance
from .super_batch_stream import SuperBatchStream as SuperBatchStream
from .targets import labels_of as labels_of, make_targets as make_targets
from .webdataset_stage import with_il as with_il
