"""Files of weights that a user names."""

import hashlib

from rhostream.errors import ConfigError


def weights_digest(weights: str) -> str:
    """SHA-256 of a local file; raises ConfigError where it cannot be read."""
    from rhostream.loaders.storage import UnreadableError, read_file  # here: settings need none of it

    try:
        return hashlib.sha256(read_file(weights)).hexdigest()
    except FileNotFoundError as error:
        raise ConfigError(f"weights {weights!r}: no such file; give a local file") from error
    except UnreadableError as error:
        raise ConfigError(f"weights {weights!r} {error.cause}: {error.remedy or 'give a local file'}") from error
