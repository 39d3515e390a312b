"""`rho thumbnails`: small copies of the samples, which candidates are scored on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
