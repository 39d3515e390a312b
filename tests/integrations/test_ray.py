"""Units made by the actors of a real Ray cluster on this machine: the same bytes, whoever dies."""

import ipaddress
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
from helpers import fatal_maker, remote_store
from helpers.corpus_fixture import write_shapes
from helpers.fatal_maker import Fatal, Number
from helpers.ray_kills import ACTOR, sweep
from helpers.remote_store import S3
from helpers.shards_corpus import contents, manifest_of, write_corpus
from helpers.small_workspace import SmallWorkspace
from helpers.texts import text_manifest, write_table

from rhostream.errors import ConfigError, CorpusError, RhostreamError, WorkerError
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.tokenize_config import TokenizeConfig
from rhostream.pipeline.export.formats import write_fiftyone, write_webdataset
from rhostream.pipeline.export.subset import Choice, Subset
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.jobs.engine import Engine
from rhostream.pipeline.jobs.units import make_units
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.pipeline.tokens.write import write_tokens

ray: Any = pytest.importorskip("ray")
on_ray = pytest.importorskip("rhostream.pipeline.jobs.on_ray")

RHO = [sys.executable, "-c", "from rhostream.cli.main import main; main()"]

s3, impatient = remote_store.s3, remote_store.impatient


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(fatal_maker)  # actors do not import the tests' modules
    remote_store.serving_s3()  # first: actors have the environment that they begin with
    with on_ray._cluster(2):
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 60, [("gone.jpg", "cat")])


@pytest.fixture(scope="module")
def tars(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of tars to index where they lie."""
    workspace = tmp_path_factory.mktemp("tars")
    write_shards(workspace, manifest_of(corpus), workers=0)
    return str(workspace / "shards")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_table(folder, 90, test_rows=10)
    return folder


def make_all(location: str, corpus: Path, tars: str, texts: Path, **engine: Any) -> None:
    """Every stage that takes an engine, in workspaces below a folder or a store's prefix."""
    workspace = Workspace(f"{location}/w")
    write_shards(workspace, manifest_of(corpus, image={"size": 8}), **engine)
    write_thumbnails(workspace, ThumbnailsConfig(size=8, **engine))
    score_il(workspace, ILScoreConfig(device="cpu", **engine))
    write_core_set(workspace, CoreSetConfig(keep=0.5, **engine))
    subset = Subset(workspace, Choice(sql="SELECT key FROM samples"))
    write_webdataset(subset, f"{location}/exported", samples_per_tar=30, **engine)
    if workspace.is_local:  # FiftyOne reads no store
        write_fiftyone(subset, f"{location}/images", **engine)
    index_tars(f"{location}/indexed", [tars], manifest_of(Path(), format="webdataset", root=""), **engine)
    write_shards(f"{location}/texts", text_manifest(texts, shard_size=30), workers=0)
    write_tokens(f"{location}/texts", TokenizeConfig(**engine))


def files_of(location: str) -> dict[str, bytes]:
    """Each file below a folder or a store's prefix with its content; what a run has cost is its own."""
    files, root = fsspec.core.url_to_fs(location)
    files.invalidate_cache()
    found = {str(path).removeprefix(root): files.cat_file(path) for path in files.find(root)}
    return {name: content for name, content in found.items() if "/costs/" not in name}


@pytest.fixture(scope="module")
def model(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an IL model of the corpus."""
    workspace = Workspace(tmp_path_factory.mktemp("model"))
    write_shards(workspace, manifest_of(corpus, image={"size": 8}), workers=0)
    train_il(workspace, ILTrainConfig(model="mlp", steps=2, device="cpu"))
    return {name: workspace.read_bytes(name) for name in ("il/mlp/model.json", "il/mlp/model.safetensors")}


def with_model(location: str, model: dict[str, bytes]) -> str:
    for name, content in model.items():
        Workspace(f"{location}/w").write_bytes(name, content)
    return location


@pytest.fixture(scope="module")
def expected(
    corpus: Path, tars: str, texts: Path, model: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What this process makes."""
    location = with_model(str(tmp_path_factory.mktemp("local")), model)
    make_all(location, corpus, tars, texts, workers=0)
    return files_of(location)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_stage_makes_what_local_processes_make(
    corpus: Path,
    tars: str,
    texts: Path,
    model: dict[str, bytes],
    expected: dict[str, bytes],
    tmp_path: Path,
    workers: int,
) -> None:
    location = with_model(str(tmp_path), model)
    make_all(location, corpus, tars, texts, engine="ray", workers=workers)
    assert files_of(location) == expected


def test_every_stage_makes_the_same_in_a_store(
    corpus: Path, tars: str, texts: Path, model: dict[str, bytes], expected: dict[str, bytes], s3: S3
) -> None:
    location = with_model(f"{s3.url}/made", model)
    make_all(location, corpus, tars, texts, engine="ray", workers=2)
    assert files_of(location) == {name: content for name, content in expected.items() if "/images/" not in name}


def test_a_killed_actor_is_replaced_and_its_units_made_again(tmp_path: Path) -> None:
    told: list[int] = []
    units = [Number(number) for number in range(8)]
    fatal = Fatal(workspace=Workspace(tmp_path), deaths=2)
    found = dict(make_units(fatal, units, engine=Engine(name="ray", workers=2), advance=told.append))
    assert found == {number: number * 2 for number in range(8)}
    assert sum(told) == 16


def test_more_workers_than_the_cluster_has_cores_hang_nothing(tmp_path: Path) -> None:
    units = [Number(number) for number in range(8)]
    idle = Fatal(workspace=Workspace(tmp_path), deaths=0)
    found = dict(make_units(idle, units, engine=Engine(name="ray", workers=4), advance=lambda _: None))
    assert found == {number: number * 2 for number in range(8)}


def test_progress_of_a_unit_outlives_another_units_record(tmp_path: Path) -> None:
    told: list[int] = []
    idle, services = Fatal(workspace=Workspace(tmp_path), deaths=0), on_ray._Services()
    crew = on_ray._Crew(idle, gpus=0, advance=told.append, services=services)
    member = on_ray._Member(None, 0)
    member.told = (0, 2)  # unit 0, of which 2 are done; the record of unit 1 overtakes it
    assert crew._taken_back(member, Number(1)) == 0
    assert crew._taken_back(member, Number(0)) == 2
    assert crew._taken_back(member, Number(0)) == 0


def test_a_unit_that_ends_every_actor_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "_TRIES", 2)
    units = [Number(number) for number in range(5)]
    fatal = Fatal(workspace=Workspace(tmp_path), deaths=99)
    with pytest.raises(WorkerError, match="2 actors have died at unit 3") as caught:
        list(make_units(fatal, units, engine=Engine(name="ray", workers=1), advance=lambda _: None))
    assert "\n" not in str(caught.value)


def test_an_error_in_an_actor_is_that_of_local_processes(tmp_path: Path) -> None:
    bad = write_corpus(tmp_path / "bad", 10, [(f"gone/{number}.jpg", "cat") for number in range(20)])
    with pytest.raises(CorpusError, match=r"as 'missing', for instance 'gone/.*max_reject_share"):
        write_shards(tmp_path / "w", manifest_of(bad), engine="ray", workers=2)
    assert not (tmp_path / "w/corpus.json").exists()
    assert not list((tmp_path / "w").rglob("*.tmp"))


def test_a_cluster_of_our_own_is_reached_through_loopback_alone() -> None:
    listening = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # an actor of another test that is about to end
            listening += [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert len(listening) > 2
    addresses = [ipaddress.ip_address(each.laddr.ip.removeprefix("::ffff:")) for each in listening]
    assert all(address.is_loopback for address in addresses), addresses


def test_a_killed_raylet_is_one_line_and_work_goes_on(tmp_path: Path) -> None:
    """Ray itself would end the driver, a quarter of a minute later and without a word."""
    workspace = write_shapes(tmp_path / "w", splits={"train": 800}, shard_rows=4)
    made = Path(workspace.path("thumbnails/12-jpeg"))
    command = [*RHO, "thumbnails", "--size", "12", "--engine", "ray", "--workers", "1", "--json"]
    command += ["--workspace", workspace.location]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while driver.poll() is None and time.monotonic() < deadline and len(list(made.glob("index/*.parquet"))) < 2:
        time.sleep(0.01)
    for process in psutil.Process(driver.pid).children(recursive=True):
        if process.name() in ("raylet", "ray::_Actor"):
            process.kill()
    printed, said = driver.communicate(timeout=60)
    assert driver.returncode == 1, said
    assert printed == ""
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("rho: ")]
    assert re.match(r"rho: Ray has died on this machine, nothing answers at \S+: run the same command again", line)
    assert write_thumbnails(workspace, ThumbnailsConfig(size=12, workers=0)).shards_made < 199
    found = contents(made)
    write_thumbnails(workspace, ThumbnailsConfig(size=12, workers=0, overwrite=True))
    assert contents(made) == found


def test_a_head_that_has_long_been_silent_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    services = on_ray._Services()
    services.require()
    monkeypatch.setattr(on_ray, "_SECONDS_BETWEEN_CHECKS", 0.0)
    monkeypatch.setattr(services, "_head", ("127.0.0.1", 1))
    services.require()  # it may come back
    monkeypatch.setattr(on_ray, "_SECONDS_WITHOUT_HEAD", 0.0)
    with pytest.raises(RhostreamError, match=r"the head of the Ray cluster, 127\.0\.0\.1:1, has not answered for"):
        services.require()


def test_another_package_on_a_machine_of_the_cluster_is_refused() -> None:
    here = next(iter(on_ray._packages().values()))
    on_ray.require_same_package({"a": here})
    with pytest.raises(ConfigError, match=r"1 of 2 machines of the Ray cluster, for instance b, have no rhostream"):
        on_ray.require_same_package({"a": here, "b": (here[0], "")})
    with pytest.raises(ConfigError, match=r"have rhostream 0\.0\.9 on Python"):
        on_ray.require_same_package({"b": (here[0], "0.0.9")})


class Corpus(SmallWorkspace):
    """A corpus alone, of which nothing is made yet."""

    def _make(self) -> None:
        self.folder.mkdir()


def test_ended_actors_and_drivers_change_no_byte(tmp_path: Path) -> None:
    """`benchmarks/ray_kills.py` ends those of every stage, and more of them."""
    found = sweep(Corpus(tmp_path, images=160), "shards", [ACTOR, "SIGKILL"])
    assert found.ended == {ACTOR: 1, "SIGKILL": 1}
