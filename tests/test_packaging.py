"""What is installed is what is in the tree, imports run downward, and light commands stay light."""

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import rhostream
from rhostream.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]

#: The folders and, in each, its rooms and modules, lowest first: each imports those above it in this table.
ORDER = {
    "loaders": ("storage", "decode", "index", "reference", "stream"),
    "selection": (
        "tasks",
        "rules",
        "scoring",
        "policies",
        "ledger",
        "selected_batch",
        "batch_queue",
        "dealing",
        "source",
        "full_images",
        "choice",
        "choosing",
        "replay",
        "token_selection",
        "companions",
        "transforms",
        "selector",
        "data_loader",
    ),
    "pipeline": (
        "config",
        "jobs",
        "corpora",
        "shards",
        "in_place",
        "thumbnails",
        "tokens",
        "models",
        "il",
        "training",
        "forecast",
        "comparison",
        "sql",
        "explain",
        "export",
        "report",
    ),
    "cli": (),
}
FOLDERS = (*ORDER, "data_manifests")
RANK = {
    f"rhostream.{folder}.{room}": rank
    for rank, (folder, room) in enumerate((folder, room) for folder, rooms in ORDER.items() for room in rooms)
}


def folder_of(package: str) -> Path:
    """Where a package lies in the tree: the folders stand at the top level."""
    return ROOT.joinpath(*package.split(".")[1:]) if "." in package else ROOT / package


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_listed_packages_are_the_packages_of_the_tree() -> None:
    found = {"rhostream"}
    for name in FOLDERS:
        for init in (ROOT / name).rglob("__init__.py"):
            found.add("rhostream." + ".".join(init.parent.relative_to(ROOT).parts))
    assert set(SETUPTOOLS["packages"]) == found
    assert all((folder_of(package) / "__init__.py").exists() for package in found)
    for name in FOLDERS:
        for path in (ROOT / name).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path} is in no package"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    pytest.importorskip("setuptools", reason="NOT TESTED: setuptools is not installed")
    source = tmp_path_factory.mktemp("source")
    for name in ("rhostream", *FOLDERS):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    built = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    run(f"import os; os.chdir({str(source)!r})\n{build}")
    (path,) = built.glob("*.whl")
    return path


@pytest.mark.slow  # builds it
def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "rho = rhostream.cli.main:main" in archive.read(entry_points).decode()
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    modules = {
        f"{package.replace('.', '/')}/{module.name}"
        for package in SETUPTOOLS["packages"]
        for module in folder_of(package).glob("*.py")
    }
    data = {
        f"{package.replace('.', '/')}/{path.relative_to(folder_of(package))}"
        for package in SETUPTOOLS["packages"]
        for pattern in (*SETUPTOOLS["package-data"]["*"], *SETUPTOOLS["package-data"].get(package, ()))
        for path in folder_of(package).glob(pattern)
    }
    assert len(data) > 1
    assert names == modules | data


TINY = """
name = "tiny"
format = "synthetic"
root = "corpus"
seed = 0
shard_size = 200

[options]
images = 400
test_images = 56

[image]
size = 32

[il]
steps = 2
"""

RUNS_COMMANDS = """
import contextlib
import io
import json
import sys
from pathlib import Path

from rhostream.cli.main import main

codes, said = [], []
for command in json.loads(Path("commands.json").read_text()):
    sys.argv = ["rho", *command, "--workspace", "workspace"]
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            main()
        except SystemExit as end:
            codes.append(end.code)
    said.append(told.getvalue())
print(json.dumps([codes, said]))
"""

SELECTS = """
import importlib.util

from torch import nn

from rhostream.loaders import CandidateStream
from rhostream.selection import OnlineSelector

model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 14))
selector = OnlineSelector(model, batch_size=4, select="rho_loss")
stream = CandidateStream("workspace", il="strided_cnn", super_batch_size=40, seed=0)
print(len(next(iter(selector(stream))).keys))
print([name for name in ("loaders", "selection", "pipeline", "cli") if importlib.util.find_spec(name)])
"""


@pytest.mark.slow
def test_the_wheel_alone_trains_and_names_missing_extras(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    unset = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}

    def call(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "environment/bin" / program
        command = [path if path.exists() else Path(sys.executable).with_name(program), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    def told(program: str, *arguments: str | Path) -> str:
        done = call(program, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told("uv", "venv", "--python", sys.executable, "environment")
    told("uv", "pip", "install", "--python", "environment", "--constraints", ROOT / "requirements/run.lock", wheel)
    assert told("rho", "--version") == f"rho {rhostream.__version__}\n"
    assert "rho shards --manifest imagefolder.toml" in told("rho", "init", "imagefolder", "--root", "photos")
    missing = {
        ("query", "SELECT 1"): ("duckdb", "sql"),
        ("explain", "reasons"): ("duckdb", "sql"),
        ("report",): ("matplotlib", "report"),
        ("train", "--compare", "uniform,rho_loss"): ("matplotlib", "report"),
        ("train", "--name", "resnet", "--model", "resnet18"): ("torchvision", "torchvision"),
        ("train", "--name", "timm", "--model", "timm/resnet18"): ("timm", "timm"),
    }
    trains = (
        ["shards", "--manifest", "tiny.toml", "--workers", "0"],
        ["il", "train"],
        ["il", "score"],
        ["train", "--steps", "2", "--select", "rho_loss"],
    )
    # In one process, as each would import torch.
    (tmp_path / "commands.json").write_text(json.dumps([*trains, *missing]))
    *_, result, selected, found = told("python", "-c", RUNS_COMMANDS + SELECTS).splitlines()
    codes, said = json.loads(result)
    assert codes[: len(trains)] == [0] * len(trains), said
    for (library, extra), code, line in zip(missing.values(), codes[len(trains) :], said[len(trains) :], strict=True):
        expected = f"rho: this needs {library}, which is not installed: run `pip install 'rhostream[{extra}]'`\n"
        assert (code, line) == (1, expected)
    assert (selected, found) == ("4", "[]")


def test_every_library_that_is_imported_is_declared() -> None:
    project = PYPROJECT["project"]
    declared = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {re.split(r"[^\w-]", line)[0] for line in declared}
    modules = {"pillow": "PIL", "scikit-learn": "sklearn", "open_clip_torch": "open_clip"}
    known = {modules.get(name, name.replace("-", "_")) for name in names} | set(sys.stdlib_module_names)
    for name in ("rhostream", *FOLDERS):
        for path in (ROOT / name).rglob("*.py"):
            undeclared = {module.split(".")[0] for module in imports(path)} - known
            assert not undeclared, f"{path.relative_to(ROOT)} imports {undeclared}"


def test_the_run_lock_pins_the_product_without_its_tools() -> None:
    run, develop = (
        dict(re.findall(r"^(\S+?)==(\S+)", (ROOT / f"requirements/{name}.lock").read_text(), re.MULTILINE))
        for name in ("run", "develop")
    )
    assert run.items() < develop.items()
    pinned = run.keys()
    assert {re.split(r"[^\w-]", line)[0] for line in PYPROJECT["project"]["dependencies"]} <= pinned
    assert not pinned & {"accelerate", "lightning", "moto", "mypy", "playwright", "pytest", "transformers", "wandb"}


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that `path` imports, those inside functions included."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found += (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


def room_of(module: str) -> str | None:
    """The room that a module lies in; its folder, where it lies in no room; None if it is not ours."""
    parts = module.split(".")
    if parts[0] != "rhostream":
        return None
    room = ".".join(parts[:3])
    return room if room in RANK else ".".join(parts[:2]) if len(parts) > 1 and parts[1] in ORDER else "rhostream"


def rank(room: str) -> int:
    if room in RANK:
        return RANK[room]
    if room == "rhostream":
        return -1
    # A folder's own names come from its rooms, the highest included.
    return max((RANK[f"{room}.{inner}"] for inner in ORDER[room.split(".")[1]]), default=len(RANK))


def modules_of(folder: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts if folder == "rhostream" else ("rhostream", *parts)).removesuffix(".__init__"), path


def test_the_order_names_each_room_of_the_tree() -> None:
    for name in ("loaders", "selection", "pipeline"):
        found = {
            path.stem for path in (ROOT / name).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        assert found - {"__init__"} == set(ORDER[name])


@pytest.mark.parametrize("folder", ["rhostream", *FOLDERS])
def test_imports_between_rooms_run_downward(folder: str) -> None:
    for module, path in modules_of(folder):
        own = room_of(module)
        assert own
        above = {room for used in imports(path) if (room := room_of(used)) and room != own and rank(room) >= rank(own)}
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_rooms_import_each_other_by_their_public_names(folder: str) -> None:
    for module, path in modules_of(folder):
        for used in imports(path):
            room = room_of(used)
            if room not in RANK or used == room or room == room_of(module):
                continue
            name = used.removeprefix(f"{room}.")
            is_package = folder_of(room).is_dir()
            assert "." not in name or not is_package, f"{path.relative_to(ROOT)}: {used} is not imported from {room}"
            assert not name.startswith("_"), f"{path.relative_to(ROOT)} imports {used}, a private name"


def test_all_code_imports_the_folders_by_their_installed_names() -> None:
    for name in ("rhostream", *FOLDERS, "tests", "benchmarks", "examples"):
        for path in sorted((ROOT / name).rglob("*.py")):
            direct = {module.split(".")[0] for module in imports(path)} & set(FOLDERS)
            assert not direct, f"{path.relative_to(ROOT)} imports {direct}"


def loaded(code: str, *modules: str) -> list[str]:
    """Which of `modules` are loaded after `code`."""
    report = f"import sys; print([name for name in {modules!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit\natexit.register(exec, {report!r}, {{}})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = ast.literal_eval(done.stderr.strip().splitlines()[-1])
    return found


@pytest.mark.slow
def test_loaders_and_selection_pull_in_nothing_above_them() -> None:
    code = "from rhostream.loaders import *\nfrom rhostream.selection import *"
    above = ("rhostream.pipeline", "rhostream.cli", "click", "duckdb")
    assert loaded(code, *above, "rhostream.loaders.stream.candidate_stream") == [
        "rhostream.loaders.stream.candidate_stream"
    ]


HEAVY = (
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "duckdb",
    "fsspec",
    "PIL",
    "webdataset",
    "tqdm",
    "asyncio",
    "matplotlib",
    "psutil",
    "jinja2",
)


def test_no_commands_help_loads_anything_heavy() -> None:
    code = f"""
import sys
from contextlib import suppress
from rhostream.cli.main import main
for arguments in ([], *([name] for name in {tuple(COMMANDS)!r})):
    sys.argv = ["rho", *arguments, "--help"]
    with suppress(SystemExit):
        main()
"""
    assert loaded(code, *HEAVY) == []
