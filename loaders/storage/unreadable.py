"""What the readers of artifacts raise."""


class UnreadableError(Exception):
    """A file does not hold what it should. The caller adds whose file it is, and raises an error of its own.

    Args:
        cause: in one line, to follow the file's name: "is a folder, not a file".
        remedy: where the cause has one of its own.
    """

    def __init__(self, cause: str, *, remedy: str = "") -> None:
        self.cause, self.remedy = " ".join(cause.split())[:400], remedy
        super().__init__(self.cause)
