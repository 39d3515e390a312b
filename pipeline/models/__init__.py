"""Networks by name, where and how precisely they run, how they are evaluated and what that costs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
