"""Every error a user can cause. The message says, in one line, the value, the cause and the remedy.

The command line prints the message alone, without a traceback, and exits with 2 for a `ConfigError`, else with 1.
"""


class RhostreamError(Exception):
    """Base of all errors that are the input's or the user's, not the program's."""


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


class UndecodableImageError(RhostreamError):
    """Bytes that are not an image a browser could show.

    Attributes:
        reason: one of `rhostream.schema.REJECT_REASONS`.
        detail: what the decoder said.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UndecodableImageError"], tuple[str, str]]:
        return (type(self), (self.reason, self.detail))
