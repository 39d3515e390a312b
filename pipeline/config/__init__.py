"""Settings: the manifest and the settings of every stage, their layers and checks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
