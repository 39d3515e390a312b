"""Markers that follow from where a test lies, and the loud skip of what real corpora would check."""

from pathlib import Path

import pytest
from helpers.support import SHARED

#: Folders whose every test carries the marker. Training a run takes seconds, and these do little else.
MARKED_FOLDERS = {
    "faults": "slow",
    "gpu": "gpu",
    "integrations": "slow",
    "pipeline/comparison": "slow",
    "pipeline/report": "slow",
    "pipeline/training": "slow",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="NOT TESTED on real data: ../shared is missing")
    there = (SHARED / "data" / "unpack.py").exists()
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parent
        for parent in (folder, *folder.parents):
            if marker := MARKED_FOLDERS.get(parent.as_posix()):
                item.add_marker(marker)
        if item.get_closest_marker("real_data") and not there:
            item.add_marker(missing)
