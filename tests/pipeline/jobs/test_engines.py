"""Whoever makes the units, the workspace ends the same: what engines have in common, without a Ray cluster."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.shards_corpus import contents, manifest_of, write_corpus

from rhostream import ConfigError, WorkspaceError
from rhostream.extras import install_command
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.jobs import engine as engine_module, lease as lease_module
from rhostream.pipeline.jobs.engine import chosen_engine
from rhostream.pipeline.jobs.lease import lease, refuse_held
from rhostream.pipeline.jobs.lock import exclusive_lock
from rhostream.pipeline.shards.write import ShardsSummary, write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails

Static = Callable[..., None]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes this process a static job."""

    def become(rank: int, ranks: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))

    return become


def made(workspace: Path, corpus: Path, engine: Any, workers: int) -> ShardsSummary:
    """Shards, and once these are complete their index in place and thumbnails."""
    summary = write_shards(workspace, manifest_of(corpus), engine=engine, workers=workers)
    if summary.complete:
        write_thumbnails(workspace, ThumbnailsConfig(size=8, workers=workers, engine=engine))
    return summary


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 60, [("gone.jpg", "cat")])


@pytest.mark.slow
def test_two_static_jobs_make_what_one_process_makes(corpus: Path, tmp_path: Path, job: Static) -> None:
    made(tmp_path / "one", corpus, "local", 0)
    job(1, 2)
    first = write_shards(tmp_path / "two", manifest_of(corpus), engine="static", workers=0)
    assert (first.complete, first.units, first.units_made) == (False, 4, 2)
    assert not (tmp_path / "two/corpus.json").exists()
    job(0, 2)
    last = write_shards(tmp_path / "two", manifest_of(corpus), engine="static", workers=0)
    assert (last.complete, last.units_made, last.entries) == (True, 2, 61)
    for rank in (1, 0):
        job(rank, 2)
        write_thumbnails(tmp_path / "two", ThumbnailsConfig(size=8, workers=0, engine="static"))
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_static_jobs_index_tars_where_they_lie(corpus: Path, tmp_path: Path, job: Static) -> None:
    write_shards(tmp_path / "w", manifest_of(corpus), workers=0)
    tars, manifest = [str(tmp_path / "w/shards")], manifest_of(Path(), format="webdataset", root="")
    index_tars(tmp_path / "one", tars, manifest, workers=0)
    for rank in (2, 0, 1):
        job(rank, 3)
        summary = index_tars(tmp_path / "three", tars, manifest, workers=0, engine="static")
        assert summary.complete == (rank == 1)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_a_plain_run_finishes_what_static_jobs_have_left(corpus: Path, tmp_path: Path, job: Static) -> None:
    job(1, 3)
    write_shards(tmp_path / "w", manifest_of(corpus), engine="static", workers=0)
    assert write_shards(tmp_path / "w", manifest_of(corpus), workers=0).units_made == 3
    write_shards(tmp_path / "one", manifest_of(corpus), workers=0)
    assert contents(tmp_path / "w") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "RANK and WORLD_SIZE not set"),
        ({"RANK": "0"}, "WORLD_SIZE not set"),
        ({"WORLD_SIZE": "2"}, "RANK not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x'"),
    ],
)
def test_a_static_job_without_its_share_is_refused(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        chosen_engine("static")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"]
)
def test_a_ray_address_where_nothing_answers_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS={address}: nothing answers there"):
        chosen_engine("ray")


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        write_shards(tmp_path / "w", manifest_of(tmp_path), engine="ray")
    assert install_command(str(caught.value.name)) == "pip install 'rhostream[ray]'"


def test_static_jobs_and_a_plain_run_exclude_each_other(tmp_path: Path, job: Static) -> None:
    job(0, 2)
    workspace, static = Workspace(tmp_path), chosen_engine("static")
    with (
        exclusive_lock(workspace, "rho shards", engine=static),
        exclusive_lock(workspace, "rho shards", engine=static),
        pytest.raises(WorkspaceError, match="another `rho shards` is writing"),
        exclusive_lock(workspace, "rho shards"),
    ):
        pass


def test_overwriting_is_no_job_of_many(corpus: Path, tmp_path: Path, job: Static) -> None:
    job(0, 2)
    with pytest.raises(ConfigError, match="--overwrite with --engine static"):
        write_shards(tmp_path / "w", manifest_of(corpus), engine="static", workers=0, overwrite=True)


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with lease(workspace, "", "rho shards"):
        with pytest.raises(WorkspaceError, match="another `rho shards` is writing"):
            refuse_held(workspace, "")
        with pytest.raises(WorkspaceError, match="another `rho shards`"), exclusive_lock(workspace, "rho index"):
            pass
    refuse_held(workspace, "")
    assert not list(tmp_path.iterdir())


def test_the_lease_of_a_killed_driver_is_taken_over(tmp_path: Path) -> None:
    dies = (
        "import os; from rhostream.loaders.storage import Workspace; from rhostream.pipeline.jobs.lease import lease\n"
        f"with lease(Workspace({str(tmp_path)!r}), '', 'rho shards'): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", dies], check=False, timeout=120)
    assert (tmp_path / ".lease.json").exists()
    with exclusive_lock(Workspace(tmp_path), "rho shards"):
        assert not (tmp_path / ".lease.json").exists()


@pytest.mark.parametrize("alive", [True, False])
def test_the_holder_on_another_machine_is_believed_while_it_renews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr(lease_module, "SECONDS_BETWEEN_RENEWALS", 0.05)
    workspace, ended = Workspace(tmp_path), threading.Event()
    found = {"holder": "other", "command": "rho shards", "machine": "elsewhere", "process": 1, "started": 0.0}

    def renew() -> None:
        count = 0
        while not ended.wait(0.01):
            workspace.write_json(".lease.json", found | {"renewed": count})
            count += alive

    workspace.write_json(".lease.json", found | {"renewed": -1})
    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        if alive:
            with pytest.raises(WorkspaceError, match="another `rho shards`"):
                refuse_held(workspace, "")
    finally:
        ended.set()
        renewing.join()
    if not alive:
        refuse_held(workspace, "")
        assert not workspace.exists(".lease.json")


def test_static_jobs_write_under_temporary_names_of_their_own(corpus: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from rhostream.loaders.storage import Workspace\n"
        "from rhostream.pipeline.jobs import chosen_engine, exclusive_lock\n"
        "w = Workspace(sys.argv[1])\n"
        "with exclusive_lock(w, 'rho shards', engine=chosen_engine('static')), w.writing('shards/x.tar'):\n"
        "    print(*(path.name for path in __import__('pathlib').Path(sys.argv[1]).rglob('*.tmp')))"
    )
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
    names = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        for _ in range(2)
    }
    assert len(names) == 2
    assert all(name.startswith("x.tar.") and name.endswith(".tmp") for name in names)
