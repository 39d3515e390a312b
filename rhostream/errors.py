"""Every error a user can cause. The message says, in one line, the value, the cause and the remedy.

The command line prints the message alone, without a traceback, and exits with 2 for a `ConfigError`, else with 1. Where
the remedy is to make an artifact again, a `Remedy` says which: the command line tells it as the command to type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rhostream.plain_text import told


class Stage(StrEnum):
    """What makes the artifacts of a workspace, in words."""

    SHARDS = "write the shards again with the same settings, which makes what is missing"
    INDEX = "index the tars again with the same settings, which makes what is missing"
    THUMBNAILS = "make the thumbnails"
    TOKENS = "tokenize the texts"
    IL_TRAIN = "train the IL model"
    IL_SCORE = "score the shards by the IL model"
    CORE_SET = "choose the core set"
    CLUSTER = "cluster the pairs"
    TRAIN = "train a model"
    REPORT = "write the report"
    MISLABELED = "list the samples that are likely mislabeled"


@dataclass(frozen=True)
class Remedy:
    """A stage to run, and with which settings.

    Attributes:
        workspace: its location.
        settings: by name: of the IL model, of the shard; True for a switch such as `overwrite`.
    """

    stage: Stage
    workspace: str
    settings: Mapping[str, str | bool] = field(default_factory=dict)

    def __str__(self) -> str:
        given = [name if value is True else f"{name} {value}" for name, value in self.settings.items()]
        return f"{self.stage} ({', '.join(given)})" if given else str(self.stage)


class RhostreamError(Exception):
    """Base of all errors that are the input's or the user's, not the program's.

    Args:
        message: value and cause; and the remedy, where it is not to run stages. Secrets of URLs are left out, and
            control characters are escaped.
        remedies: stages to run, one after the other. They follow the message after a colon; without one where its
            last word is "or" or "and".
    """

    def __init__(self, message: str, *remedies: Remedy) -> None:
        message = told(message)
        super().__init__(message, *remedies)
        self.message, self.remedies = message, remedies

    def __str__(self) -> str:
        return self.with_remedies(", then ".join(map(str, self.remedies)))

    def with_remedies(self, told: str) -> str:
        """The message, and its remedies told in these words."""
        if not told:
            return self.message
        joint = " " if self.message.endswith((" or", " and")) else ": "
        return f"{self.message}{joint}{told}"


class ConfigError(RhostreamError):
    """A flag, environment variable or manifest entry that cannot be used as it stands."""


class CorpusError(RhostreamError):
    """The corpus as a whole cannot be read: no such root, no entries, mostly bad entries."""


class WorkspaceError(RhostreamError):
    """The workspace lacks what a stage needs, or holds what it would overwrite."""


class ShardError(RhostreamError):
    """A shard does not hold what its index says: truncated, vanished, rewritten or silently corrupted."""


class IrreducibleLossError(RhostreamError):
    """An IL table cannot serve these shards: missing or non-finite values, other keys, another class list."""


class WorkerError(RhostreamError):
    """A process that worked for this one has died: killed, or out of memory."""


class OtherRankError(RhostreamError):
    """Another process of the job has failed, and tells why."""


class UndecodableError(RhostreamError):
    """Bytes that are not what a sample should hold.

    Attributes:
        reason: one of `rhostream.schema.REJECT_REASONS`.
        detail: what the decoder said.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UndecodableError"], tuple[str, str]]:
        return (type(self), (self.reason, self.detail))


class UndecodableImageError(UndecodableError):
    """Bytes that are not an image a browser could show."""


class UndecodableTextError(UndecodableError):
    """Bytes that are not a text."""
