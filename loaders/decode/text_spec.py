"""A text spec: how a text becomes the tokens that a model takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field as dataclass_field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.decode.input_spec import InputSpec
from rhostream.loaders.decode.tokenizers import (
    TOKENIZERS_FOLDER,
    WORDS,
    WORDS_VOCABULARY,
    Tokenize,
    file_tokenizer,
)
from rhostream.loaders.storage import UnreadableError, shaped

if TYPE_CHECKING:
    from torch import Tensor

#: Stands where a row of token ids has ended.
NO_TOKEN: Final = -1
_WIDTH: Final = 64  # of a token inside a small model
_OF_A_FUNCTION: Final = "function"


@dataclass(frozen=True, kw_only=True)
class TextSpec(InputSpec):
    """Which tokenizer, and how many of its tokens a model takes.

    Attributes:
        tokenizer: "words", which is built in; a `tokenizer.json` of Hugging Face's tokenizers, or the folder that holds
            one; or a function of a list of texts that gives the ids of each.
        length: tokens of a text, at most; what is longer is cut.
        sha256: of the tokenizer file; "" where there is none. What follows is read from the file, too.
        pad_id: the id that a model sees beyond a text's end, where the attention mask is 0.
        vocabulary: number of ids; 0 where it is not known.

    Raises:
        ConfigError: no such file, or a length below 1.
    """

    field: ClassVar[str] = "text"

    tokenizer: str | Tokenize = dataclass_field(default=WORDS, compare=False)
    length: int = 128
    sha256: str = ""
    pad_id: int = 0
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"text length {self.length}: a spec needs at least 1 token")
        if callable(self.tokenizer):
            return
        if self.tokenizer == WORDS:
            object.__setattr__(self, "vocabulary", WORDS_VOCABULARY)
        elif not self.sha256:
            found, digest = file_tokenizer(self.tokenizer, self.length)
            for name, value in (("sha256", digest), ("pad_id", found.pad_id), ("vocabulary", found.vocabulary)):
                object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From the `[text]` table of a manifest or the `spec` of a model's metadata."""
        if unknown := sorted(values.keys() - {each.name for each in fields(cls)}):
            raise ConfigError(f"[text] {values}: unknown setting {unknown[0]!r}; known are tokenizer, length")
        try:
            told = shaped(values, _Told)
        except UnreadableError as error:
            raise ConfigError(f"[text] {values} {error.cause}: correct it") from error
        if told.tokenizer == _OF_A_FUNCTION:
            return cls(**{**vars(told), "tokenizer": _not_kept})
        return cls(**vars(told))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a tokenizer file by its place in a workspace, see `keep_tokenizer`."""
        values: dict[str, Any] = {"tokenizer": self.tokenizer, "length": self.length}
        if callable(self.tokenizer):
            return values | {"tokenizer": _OF_A_FUNCTION, "pad_id": self.pad_id, "vocabulary": self.vocabulary}
        if self.sha256:
            place = f"{TOKENIZERS_FOLDER}/{self.sha256[:16]}.json"
            told = {"sha256": self.sha256, "pad_id": self.pad_id, "vocabulary": self.vocabulary}
            return values | {"tokenizer": place} | told
        return values

    @property
    def values(self) -> int:
        return self.length * _WIDTH

    def inputs(self, name: str, stored: "Tensor") -> "dict[str, Tensor]":
        """int64 (n, longest) `input_ids`, and `attention_mask`, 1 where there is a token.

        Args:
            stored: int32 (n, L), `NO_TOKEN` after the end of each.
        """
        there = stored != NO_TOKEN
        longest = max(1, int(there.sum(1).max())) if len(stored) else 1
        stored, there = stored[:, :longest], there[:, :longest]
        return {"input_ids": stored.masked_fill(~there, self.pad_id).long(), "attention_mask": there.long()}

    def joined(self, parts: "Sequence[Tensor]") -> "Tensor":
        import torch
        from torch.nn.functional import pad

        longest = max(part.shape[1] for part in parts)
        return torch.cat([pad(part, (0, longest - part.shape[1]), value=NO_TOKEN) for part in parts])

    def blank(self, count: int) -> npt.NDArray[np.int32]:
        """int32 (count, length), all `NO_TOKEN`."""
        return np.full((count, self.length), NO_TOKEN, np.int32)


@dataclass(frozen=True, kw_only=True)
class _Told:
    tokenizer: str = WORDS
    length: int = 128
    sha256: str = ""
    pad_id: int = 0
    vocabulary: int = 0


def _not_kept(texts: list[str]) -> Sequence[Sequence[int]]:
    raise ConfigError(
        "the tokenizer of this spec was a function, which no file can hold: give it again with spec=TextSpec(…), or "
        "use a tokenizer.json"
    )
