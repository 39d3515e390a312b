"""From stored bytes to the pixels that a model sees: specs, decoders, and the threads and processes that run them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
