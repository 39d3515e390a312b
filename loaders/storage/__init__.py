"""Where artifacts lie: workspaces, local or remote, retries, the cache of remote shards, reading by offset."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
