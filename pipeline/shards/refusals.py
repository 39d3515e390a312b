"""Refused entries, counted by reason with an example of each, and when they are too many."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from rhostream.errors import CorpusError
from rhostream.pipeline.config import Manifest

_NOT_BAD: Final = ("excluded", "straddling")

#: Reason to number and an example.
Refusals = dict[str, tuple[int, str]]


def example(source: str, detail: str) -> str:
    """An entry that is refused, and why, for people."""
    return f"{source}: {detail}" if detail else source


def by_reason(rejects: Sequence[Mapping[str, str]]) -> Refusals:
    """Rows of `rhostream.schema.REJECTS`, counted; the example is the first source, and what is wrong with it."""
    counts = Counter(reject["reason"] for reject in rejects)
    first = {reject["reason"]: example(reject["source"], reject["detail"]) for reject in reversed(rejects)}
    return {reason: (count, first[reason]) for reason, count in sorted(counts.items())}


def add_refusals(total: Refusals, more: Mapping[str, tuple[int, str]]) -> None:
    """Count further ones in; the first example of a reason stays."""
    for reason, (count, shown) in more.items():
        before, first = total.get(reason, (0, shown))
        total[reason] = (before + count, first)


def refuse_mostly_bad(rejects: Refusals, entries: int, manifest: Manifest) -> None:
    """Raises CorpusError where a larger share of the entries than `max_reject_share` is refused.

    What the clean list leaves out, or stands on the wrong side of the split, is not bad, and does not count.
    """
    entries -= sum(rejects[reason][0] for reason in _NOT_BAD if reason in rejects)
    rejects = {reason: found for reason, found in rejects.items() if reason not in _NOT_BAD}
    refused = sum(count for count, _ in rejects.values())
    if refused <= manifest.max_reject_share * entries:
        return
    reason, (count, shown) = max(rejects.items(), key=lambda item: item[1][0])
    raise CorpusError(
        f"{refused} of the first {entries} entries are refused, {count} as {reason!r}, for instance "
        f"{shown!r}: check {manifest.place} and the options, or raise max_reject_share "
        f"(now {manifest.max_reject_share:g})"
    )
