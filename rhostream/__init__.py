"""rhostream: train on points that are learnable, worth learning and not yet learnt (RHO-LOSS, arXiv 2206.07137)."""

from rhostream.errors import (
    ConfigError,
    CorpusError,
    IrreducibleLossError,
    RhostreamError,
    ShardError,
    UndecodableImageError,
    WorkspaceError,
)

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "CorpusError",
    "IrreducibleLossError",
    "RhostreamError",
    "ShardError",
    "UndecodableImageError",
    "WorkspaceError",
    "__version__",
]
