"""rhostream: train on points that are learnable, worth learning and not yet learnt (RHO-LOSS, arXiv 2206.07137).

Names load on first use: importing the package alone imports neither torch nor NumPy.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
