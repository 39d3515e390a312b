"""What makes token ids of texts: words by their hashes, a `tokenizer.json`, or a function of the user's."""

import functools
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from rhostream.errors import ConfigError
from rhostream.extras import install_command
from rhostream.loaders.decode.texts import PAIR_SEPARATOR
from rhostream.loaders.storage import UnreadableError, Workspace, read_file

if TYPE_CHECKING:
    from rhostream.loaders.decode.text_spec import TextSpec

#: Token ids of one text, int32 (tokens,).
Ids = npt.NDArray[np.int32]
#: A user's own: texts to the ids of each.
Tokenize = Callable[[list[str]], Sequence[Sequence[int]]]

WORDS: Final = "words"
#: Of `WORDS`: 0 is no token, 1 stands between the texts of a pair.
WORDS_VOCABULARY: Final = 16_384
#: Where a workspace keeps the tokenizer files that its models were made with, by the first digits of their SHA-256.
TOKENIZERS_FOLDER: Final = "tokenizers"

_WORD: Final = re.compile(r"\w+|[^\w\s]")
_PAD_NAMES: Final = ("[PAD]", "<pad>", "<|endoftext|>")


class Tokenizer(ABC):
    """Safe for threads."""

    @abstractmethod
    def ids(self, texts: list[str], length: int) -> list[Ids]:
        """The token ids of each text, at most `length`."""


class WordTokenizer(Tokenizer):
    """Words and punctuation in lower case, each by its hash: no file, and the same ids everywhere."""

    def ids(self, texts: list[str], length: int) -> list[Ids]:
        return [self._of(text, length) for text in texts]

    def _of(self, text: str, length: int) -> Ids:
        first, separator, second = text.casefold().partition(PAIR_SEPARATOR)
        ids = [_hashed(word) for word in _WORD.findall(first)]
        if separator:
            after = [1, *(_hashed(word) for word in _WORD.findall(second))]
            ids = ids[: max(length - len(after), length // 2)] + after
        return np.array(ids[:length], np.int32)


class FileTokenizer(Tokenizer):
    """A `tokenizer.json` of Hugging Face's package tokenizers.

    Args:
        content: of the file.
    """

    def __init__(self, content: bytes, name: str) -> None:
        # Texts are encoded by several threads of ours; more threads each would hold each other up, and the package
        # warns of its own after every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import tokenizers
        except ImportError as error:
            raise ConfigError(
                f"tokenizer {name!r}: the package tokenizers is not installed; run `{install_command('tokenizers')}`, "
                f"or use the tokenizer {WORDS!r}"
            ) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:
            raise ConfigError(
                f"tokenizer {name!r} is no tokenizer.json that the package tokenizers reads ({error}): give another"
            ) from error
        self._tokenizer.no_padding()
        self._length = 0
        padding = json.loads(content).get("padding")
        known = (self._tokenizer.token_to_id(each) for each in _PAD_NAMES)
        self.pad_id = int(padding["pad_id"]) if padding else next((each for each in known if each is not None), 0)
        self.vocabulary = int(self._tokenizer.get_vocab_size())

    def ids(self, texts: list[str], length: int) -> list[Ids]:
        if length != self._length:  # one length each: see `_of_file`
            self._tokenizer.enable_truncation(length)
            self._length = length
        given = [tuple(text.split(PAIR_SEPARATOR, 1)) if PAIR_SEPARATOR in text else text for text in texts]
        return [np.array(found.ids, np.int32) for found in self._tokenizer.encode_batch_fast(given)]


class OwnTokenizer(Tokenizer):
    """A function of the user's. A pair of texts reaches it as one, with `PAIR_SEPARATOR` between."""

    def __init__(self, function: Tokenize) -> None:
        self._function = function

    def ids(self, texts: list[str], length: int) -> list[Ids]:
        found = self._function(texts)
        if len(found) != len(texts):
            raise ConfigError(
                f"the tokenizer gave {len(found)} lists of ids for {len(texts)} texts: one each is needed"
            )
        return [np.asarray(ids, np.int32)[:length] for ids in found]


def tokenizer_of(spec: "TextSpec", workspace: Workspace | None = None) -> Tokenizer:
    """What makes the ids that the spec asks for.

    Args:
        workspace: where a copy of the tokenizer file may lie.

    Raises:
        ConfigError: the file is not there, or is another one.
    """
    if callable(spec.tokenizer):
        return OwnTokenizer(spec.tokenizer)
    if spec.tokenizer == WORDS:
        return WordTokenizer()
    copied = spec.tokenizer.startswith(f"{TOKENIZERS_FOLDER}/") and workspace is not None
    path = workspace.path(spec.tokenizer) if copied and workspace is not None else spec.tokenizer
    found = file_tokenizer(path, spec.length)
    if found[1] != spec.sha256:
        raise ConfigError(
            f"tokenizer {path!r} is another file than the one that the spec was made with (SHA-256 {found[1][:16]}…, "
            f"then {spec.sha256[:16]}…): restore it"
        )
    return found[0]


@functools.lru_cache(maxsize=8)
def file_tokenizer(path: str, length: int) -> tuple[FileTokenizer, str]:
    """The tokenizer of a file and the SHA-256 of its content, read once a process for each length.

    Raises:
        ConfigError: there is no such file, or it is none.
    """
    import hashlib

    content = tokenizer_file(path)
    return FileTokenizer(content, path), hashlib.sha256(content).hexdigest()


def tokenizer_file(path: str) -> bytes:
    """The content of a `tokenizer.json`; `path` may name the folder that holds it."""
    place, _, name = path.rpartition("/")
    try:
        if "://" in path:
            return Workspace(place).read_bytes(name)
        file = Path(path)
        return read_file(file / "tokenizer.json" if file.is_dir() else file)
    except FileNotFoundError as error:
        raise ConfigError(
            f"tokenizer {path!r}: no such file; give a tokenizer.json, the folder that holds one, or {WORDS!r}"
        ) from error
    except UnreadableError as error:
        raise ConfigError(f"tokenizer {path!r} {error.cause}: give another file") from error


def keep_tokenizer(workspace: Workspace, spec: Any) -> None:
    """Copy the tokenizer file of a spec into the workspace, so that this can be moved; specs without one need none."""
    place = spec.to_dict().get("tokenizer", "")
    if place.startswith(f"{TOKENIZERS_FOLDER}/") and not workspace.exists(place):
        workspace.write_bytes(place, tokenizer_file(str(spec.tokenizer)))


@functools.lru_cache(maxsize=1 << 16)
def _hashed(word: str) -> int:
    return 2 + xxh3_64_intdigest(word.encode("utf-8", "surrogatepass")) % (WORDS_VOCABULARY - 2)
