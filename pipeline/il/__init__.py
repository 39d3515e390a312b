"""`rho il train`, `rho il score` and `rho coreset`: the reference model, its table, and what it chooses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
