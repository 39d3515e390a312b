"""What a trainer imports to read candidates: shards, their order, the join with the IL table, decoding."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
