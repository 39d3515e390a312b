"""Keys of samples: safe as tar names, derived from what the source itself calls them."""

import hashlib
import posixpath
import re
from collections.abc import Iterable

MAX_GIVEN_KEY = 90  # with an extension it still fits the 100 bytes of a ustar name
MAX_SLUG = 60

SAFE_KEY = re.compile(r"[A-Za-z0-9_-]+")
SAFE_EXT = re.compile(r"[a-z0-9]{1,8}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_]+")


def key_of(source: str, given: str | None = None) -> str:
    """The key of an entry: the given one if it is safe as a tar name, else a readable one derived from `source`.

    The hash has 64 bits instead of 32 where the readable part has lost some of the source.
    """
    if given is not None and len(given) <= MAX_GIVEN_KEY and SAFE_KEY.fullmatch(given):
        return given
    readable = posixpath.splitext(given or source)[0]
    slug = _UNSAFE.sub("-", readable).strip("-")
    lossless = len(slug) <= MAX_SLUG and readable.isascii()
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()
    return "-".join(filter(None, (slug[-MAX_SLUG:].strip("-"), digest[: 8 if lossless else 16])))


def is_safe_name(key: str, ext: str) -> bool:
    """Could `key_of` have given this key, and is `ext` a plain extension? Then <key>.<ext> names no file elsewhere."""
    return bool(SAFE_KEY.fullmatch(key)) and bool(SAFE_EXT.fullmatch(ext))


def unsafe_key(keys: list[str]) -> str | None:
    """The first of these that `key_of` could not have given; None where there is none."""
    # Keys are safe by their characters: all at once are looked through, as those of every shard are at every read.
    if all(keys) and SAFE_KEY.fullmatch("".join(["-", *keys])):
        return None
    return next(key for key in keys if not SAFE_KEY.fullmatch(key))


def unsafe_ext(exts: Iterable[str]) -> str | None:
    """The first of these that is no plain extension; None where there is none."""
    return next((ext for ext in dict.fromkeys(exts) if not SAFE_EXT.fullmatch(ext)), None)


def webdataset_key(name: str, tar: str = "") -> str:
    """The key under which an index of tars in place keeps the sample that webdataset calls `name` in `__key__`.

    `name` itself where it is safe as a tar name; else, as for "n01440764/n01440764_10026", a readable form with a hash
    of `name`. A leading "./" does not count.

    Args:
        tar: URL or path of the tar, for a corpus indexed with `--keys tar`, whose tars number their samples alike: the
            key is then derived from the tar's file name and `name`.
    """
    name = name.removeprefix("./")
    if not tar:
        return key_of(name, name)
    stem = posixpath.basename(tar.partition("?")[0]).removesuffix(".tar")
    return key_of(f"{stem}/{name}")
