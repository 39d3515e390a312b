"""What a workspace holds, without opening a tar: corpus metadata, keys, core sets, thumbnails."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
