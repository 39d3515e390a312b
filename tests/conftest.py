"""Markers that follow from where a test lies, and the loud skip of what real corpora would check."""

from pathlib import Path

import pytest
from helpers.support import SHARED

#: Folders whose every test carries the marker.
MARKED_FOLDERS = {"faults": "slow", "gpu": "gpu", "integrations": "slow"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="NOT TESTED on real data: ../shared is missing")
    there = (SHARED / "data" / "unpack.py").exists()
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(MARKED_FOLDERS[folder])
        if item.get_closest_marker("real_data") and not there:
            item.add_marker(missing)
