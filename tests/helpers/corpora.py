"""How the tests of the corpus readers open a corpus and look at its listing."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.corpora.base import Corpus, Entry
from rhostream.pipeline.corpora.formats import open_corpus


def corpus(kind: str, root: Path | str, classes: tuple[str, ...] = (), **options: Any) -> Corpus:
    """The reader as a worker process gets it: after a round trip through pickle."""
    opened = open_corpus(Manifest(name="tiny", format=kind, root=str(root), classes=classes, options=options))
    traveled: Corpus = pickle.loads(pickle.dumps(opened))
    return traveled


def by_source(reader: Corpus) -> dict[str, Entry]:
    """Entries by source; fails where two have the same."""
    listed = list(reader.entries())
    found = {entry.source: entry for entry in listed}
    assert len(found) == len(listed)
    return found


def labels(reader: Corpus) -> dict[str, int | str | None]:
    """For each source the label, or the reason why there is none."""
    return {source: entry.reason or entry.label for source, entry in by_source(reader).items()}


def reasons(reader: Corpus) -> Counter[str]:
    """How many entries the listing accepts ("") and refuses, by reason; each has either a label or a reason."""
    counts: Counter[str] = Counter()
    for entry in reader.entries():
        assert (entry.label is None) == bool(entry.reason)
        assert set(entry.extra) <= set(reader.extra_columns)
        counts[entry.reason] += 1
    return counts
