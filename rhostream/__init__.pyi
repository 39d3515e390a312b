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
    CandidateStream as CandidateStream,
    CorpusMetadata as CorpusMetadata,
    ImageSpec as ImageSpec,
    MixedStream as MixedStream,
    Order as Order,
    Prefilter as Prefilter,
    ReadOptions as ReadOptions,
    SuperBatch as SuperBatch,
    Workspace as Workspace,
    with_il as with_il,
)
from .selection import (
    Ledger as Ledger,
    LiveIL as LiveIL,
    OnlineSelector as OnlineSelector,
    ProxyScorer as ProxyScorer,
    Scorer as Scorer,
    ScoringOptions as ScoringOptions,
    SelectedBatch as SelectedBatch,
    SelectingLoader as SelectingLoader,
    SelectionConfig as SelectionConfig,
    register as register,
)

__version__: str
