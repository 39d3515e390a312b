"""What torchrun tells every process that it starts."""

import os

from rhostream.errors import ConfigError


def launched(variable: str, default: int) -> int:
    """The number in `RANK`, `WORLD_SIZE`, `LOCAL_RANK` or `LOCAL_WORLD_SIZE`.

    Raises:
        ConfigError: it is no number, or a negative one; a size is at least 1.
    """
    value = os.environ.get(variable)
    if not value:
        return default
    try:
        number = int(value)
    except ValueError:
        number = -1
    least = 1 if variable.endswith("SIZE") else 0
    if number < least:
        raise ConfigError(
            f"{variable}={value!r}: torchrun sets it to a number from {least} on; unset it without torchrun"
        )
    return number
