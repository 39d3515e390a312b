"""The reference table: irreducible losses by key, and the filter that reads them before an image is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
