"""Models that are trained along with the learner: proxies that score for it, and the live IL model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
