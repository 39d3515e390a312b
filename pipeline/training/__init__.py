"""`rho train`: Algorithm 1 of arXiv 2206.07137, and what a run records."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
