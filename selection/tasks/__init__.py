"""Tasks: what of a batch goes into a model, and what the loss of each candidate is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
