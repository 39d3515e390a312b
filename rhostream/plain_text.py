"""Text that is safe to show and to keep: no control characters, no formulas, no secrets of URLs.

The one place for it. Every error passes through `told` when it is made, every line of the command line and the report
when it is written, every name and message from a corpus through `hide_secrets` before it is kept.
"""

import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

#: What a terminal or a page would act on instead of showing it: control characters (C0 but for line feed and tab,
#: delete, C1), marks that change the direction of text, line separators, lone surrogates.
_ACTIVE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA: Final = re.compile(r"[=+\-@\t\r]")

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]*[^\s'\"<>`.,;:!?)\]]")
_USER: Final = re.compile(r"(?<=://)[^/?#@]*@")
_PARAMETER: Final = re.compile(r"(?<=[?&])([^=&#\s'\"]*)=([^&#\s'\"<>`]*)")
_SECRET: Final = re.compile(r"sig|token|secret|passw|pwd|key|auth|cred|sas|session|jwt", re.IGNORECASE)
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HIDDEN: Final = "***"
_LONG: Final = 8  # characters of a value that is no common word

#: Values that URLs were completed with, and the references that they stood for.
_known: dict[str, str] = {}


def visible(text: str) -> str:
    r"""`text` with every active character escaped, as in `\x1b`; line feeds and tabs stay."""
    return _ACTIVE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def json_visible(text: str) -> str:
    """A JSON document with the active characters of its strings escaped: its values stay what they are."""
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def csv_cell(text: str) -> str:
    """A text for a CSV: visible, and with an apostrophe before what a spreadsheet would take for a formula."""
    return visible(f"'{text}" if _FORMULA.match(text.lstrip("'")) else text)


def from_csv_cell(text: str) -> str:
    """What `csv_cell` was given, but for active characters."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text.lstrip("'")) else text


def hide_secrets(text: str) -> str:
    """`text` without the passwords, signatures and tokens of the URLs in it."""
    text = _URL.sub(lambda found: _without_secrets(with_references(found[0])), text) if "://" in text else text
    # A server's message may repeat a part of the URL alone.
    for value in [value for value in _known if len(value) >= _LONG]:
        text = text.replace(value, _known[value])
    return _PARAMETER.sub(_hidden, text) if "=" in text else text


def told(message: str) -> str:
    """A message for people: without secrets, and visible."""
    return visible(hide_secrets(message))


def secrets_in(url: str) -> list[str]:
    """Names of the secrets that a URL holds: "user" for what stands before the host, else of the query's parameters.

    A reference such as `${TOKEN}` is none.
    """
    user = _USER.search(url)
    found = ["user"] if user and _is_secret_user(url, user[0]) else []
    parameters = [(name, value) for name, value in _PARAMETER.findall(url) if not _REFERENCE.fullmatch(value)]
    return found + [name for name, value in parameters if value and _SECRET.search(name)]


def completed(url: str, environment: Mapping[str, str] | None = None) -> str:
    """The URL with the environment's values in place of references such as `${TOKEN}`.

    Raises:
        KeyError: a variable that is not set.
    """
    values = os.environ if environment is None else environment

    def value(found: re.Match[str]) -> str:
        known = values[found[1]]
        for form in {known, quote(known, safe=""), quote(known), unquote(known)}:
            if len(form) >= 4:  # a shorter one would be found all over
                _known[form] = found[0]
        return known

    return _REFERENCE.sub(value, url)


def with_references(url: str) -> str:
    """The URL with references in place of values that URLs were completed with."""
    for value in sorted(_known, key=len, reverse=True):
        url = url.replace(value, _known[value])
    return url


def _without_secrets(url: str) -> str:
    url = _USER.sub(lambda found: f"{_HIDDEN}@" if _is_secret_user(url, found[0]) else found[0], url, count=1)
    return _PARAMETER.sub(_hidden, url)


def _hidden(parameter: re.Match[str]) -> str:
    if _SECRET.search(parameter[1]) and not _REFERENCE.match(parameter[2]):
        return f"{parameter[1]}={_HIDDEN}"
    return parameter[0]


def _is_secret_user(url: str, user: str) -> bool:
    """`container@account` of Azure and the user of SFTP are names; what http sends, and what has a password, is not."""
    name = user.removesuffix("@")
    if not name or all(_REFERENCE.fullmatch(part) for part in name.split(":")):
        return False
    return ":" in name or url.lower().startswith(("http://", "https://"))
