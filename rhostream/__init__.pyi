from .errors import (
    ConfigError as ConfigError,
    CorpusError as CorpusError,
    IrreducibleLossError as IrreducibleLossError,
    RhostreamError as RhostreamError,
    ShardError as ShardError,
    UndecodableImageError as UndecodableImageError,
    WorkspaceError as WorkspaceError,
)
from .loaders import (
    Batch as Batch,
    CandidateStream as CandidateStream,
    CorpusMetadata as CorpusMetadata,
    EvaluationStream as EvaluationStream,
    ImageSpec as ImageSpec,
    MixedStream as MixedStream,
    Order as Order,
    Prefilter as Prefilter,
    ReadOptions as ReadOptions,
    SuperBatch as SuperBatch,
    Workspace as Workspace,
    with_il as with_il,
)
from .pipeline.shards import ShardsSummary as ShardsSummary, write_shards as write_shards
from .selection import (
    Classification as Classification,
    Handover as Handover,
    Ledger as Ledger,
    LiveIL as LiveIL,
    MultiLabel as MultiLabel,
    OnlineSelector as OnlineSelector,
    PerBatch as PerBatch,
    PerSample as PerSample,
    ProxyScorer as ProxyScorer,
    ReplayStream as ReplayStream,
    Scorer as Scorer,
    ScoringOptions as ScoringOptions,
    SelectedBatch as SelectedBatch,
    SelectingLoader as SelectingLoader,
    SelectionConfig as SelectionConfig,
    images_and_labels as images_and_labels,
    pixel_values_and_labels as pixel_values_and_labels,
    register as register,
)

__version__: str
