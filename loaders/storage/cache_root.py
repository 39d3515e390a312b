"""Where derived files that can be remade are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`RHO_CACHE`, else ~/.cache/rhostream."""
    return Path(os.environ.get("RHO_CACHE") or Path.home() / ".cache" / "rhostream")
