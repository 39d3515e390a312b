"""Candidates in an order that ranks, workers and interruptions do not change, joined with their irreducible losses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
