"""What a trainer imports to choose: selection functions, the scorer, the selector and its loader, the ledger."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
