"""URLs that hold a secret are not taken, as what is read again is kept."""

from rhostream.errors import ConfigError
from rhostream.plain_text import secrets_in


def refuse_secrets(url: str) -> None:
    """Raises ConfigError where a URL holds a password, a signature or a token."""
    if secrets := secrets_in(url):
        raise ConfigError(
            f"{url} holds a secret ({', '.join(secrets)}), which would stand in the workspace: put it into an "
            "environment variable, and write ${VARIABLE} in its place (in single quotes, in a shell); or leave it to "
            "the store's own configuration"
        )
