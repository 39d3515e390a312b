"""What a trainer imports to read candidates: shards, their order, the join with the IL table, decoding.

Names load on first use, so that a process which only decodes never pays for importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rhostream.loaders.batch import SuperBatch
    from rhostream.loaders.index import CorpusCard
    from rhostream.loaders.join import Prefilter
    from rhostream.loaders.mixture import MixedStream
    from rhostream.loaders.order import Order
    from rhostream.loaders.reading import Reading
    from rhostream.loaders.stream import CandidateStream
    from rhostream.loaders.view import View
    from rhostream.loaders.webdataset_stage import with_il
    from rhostream.loaders.workspace import Workspace

_HOME = {
    "CandidateStream": "stream",
    "CorpusCard": "index",
    "MixedStream": "mixture",
    "Order": "order",
    "Prefilter": "join",
    "Reading": "reading",
    "SuperBatch": "batch",
    "View": "view",
    "Workspace": "workspace",
    "with_il": "webdataset_stage",
}

__all__ = [
    "CandidateStream",
    "CorpusCard",
    "MixedStream",
    "Order",
    "Prefilter",
    "Reading",
    "SuperBatch",
    "View",
    "Workspace",
    "with_il",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
