"""Markers that follow from where a test lies, the loud skip of what real corpora would check, a cache of the tests."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import made_once
from helpers.support import SHARED

#: Folders whose every test carries the marker. Training a run takes seconds, and these do little else.
MARKED_FOLDERS = {
    "faults": "slow",
    "gpu": "gpu",
    "integrations": "slow",
    "pipeline/comparison": "slow",
    "pipeline/forecast": "slow",
    "pipeline/report": "slow",
    "pipeline/training": "slow",
}


def pytest_configure() -> None:
    """What holds for this process, and for all that tests start."""
    # With a process of pytest-xdist for each core, more threads of torch's would only wait for each other's cores.
    assert "torch" not in sys.modules
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell's background job ignores Ctrl-C, as would all that it starts: tests that send it want it heard.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _heard_signals() -> Iterator[None]:
    """`rho`'s main ignores signals on its way out. Called in this process, it would leave all later children deaf."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Only a power cut tells whether a file was synced, and a sync takes milliseconds, thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a closed file as well
        yield


@pytest.fixture(scope="session", autouse=True)
def _originals(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    folder.mkdir(exist_ok=True)
    made_once.originals = folder


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders of which `-m` wants no test are not imported; each worker would import them anew."""
    if not collection_path.is_dir():
        return None
    marker = _marker_of(collection_path)
    return True if marker and f"not {marker}" in config.option.markexpr else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests, and has the files with slow ones begin first: a process that began one last would end alone."""
    missing = pytest.mark.skip(reason="NOT TESTED on real data: ../shared is missing")
    there = (SHARED / "data" / "unpack.py").exists()
    for item in items:
        if marker := _marker_of(item.path.parent):
            item.add_marker(marker)
        if item.get_closest_marker("real_data") and not there:
            item.add_marker(missing)
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path]))


def _marker_of(folder: Path) -> str | None:
    inside = folder.relative_to(Path(__file__).parent)
    return next(
        (MARKED_FOLDERS[name] for each in (inside, *inside.parents) if (name := each.as_posix()) in MARKED_FOLDERS),
        None,
    )


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests cache is theirs, and gone with them."""
    before = os.environ.get("RHO_CACHE")
    os.environ["RHO_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["RHO_CACHE"]
    else:
        os.environ["RHO_CACHE"] = before
