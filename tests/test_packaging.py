"""What is installed is what is in the tree, imports run downward, and light commands stay light."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rhostream.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
ROOMS = ("loaders", "selection", "pipeline", "cli")

#: Which rooms a room may import, itself aside; "" is the package root.
MAY_IMPORT = {
    "": set(),
    "loaders": {""},
    "selection": {"", "loaders"},
    "pipeline": {"", "loaders", "selection"},
    "cli": {"", "loaders", "selection", "pipeline"},
}


def folder(package: str) -> Path:
    """Where a package lies in the tree: the rooms stand at the top level."""
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
    for room in ROOMS:
        for init in (ROOT / room).rglob("__init__.py"):
            found.add("rhostream." + ".".join(init.parent.relative_to(ROOT).parts))
    assert set(SETUPTOOLS["packages"]) == found
    assert all((folder(package) / "__init__.py").exists() for package in found)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path} is in no package"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    pytest.importorskip("setuptools", reason="NOT TESTED: setuptools is not installed")
    source = tmp_path_factory.mktemp("source")
    for name in ("rhostream", *ROOMS):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    built = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    run(f"import os; os.chdir({str(source)!r})\n{build}")
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_the_types_marker_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "rho = rhostream.cli.main:main" in archive.read(entry_points).decode()
    modules = {
        f"{package.replace('.', '/')}/{module.name}"
        for package in SETUPTOOLS["packages"]
        for module in folder(package).glob("*.py")
    }
    data = {
        f"{package.replace('.', '/')}/{path.relative_to(folder(package))}"
        for package in SETUPTOOLS["packages"]
        for pattern in (*SETUPTOOLS["package-data"]["*"], *SETUPTOOLS["package-data"].get(package, ()))
        for path in folder(package).glob(pattern)
    }
    assert len(data) > 1
    assert names == modules | data


def test_the_installed_rooms_are_importable_under_rhostream_alone(wheel: Path, tmp_path: Path) -> None:
    # A wheel without compiled code is installed by unpacking it.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
import importlib.util, rhostream.loaders
rooms = ("loaders", "selection", "pipeline", "cli")
print([importlib.util.find_spec(f"rhostream.{room}").origin for room in rooms])
print([room for room in rooms if importlib.util.find_spec(room)])
"""
    inside, outside = map(ast.literal_eval, run(code, PYTHONPATH=str(tmp_path)).splitlines())
    assert inside == [str(tmp_path / "rhostream" / room / "__init__.py") for room in ROOMS]
    assert outside == []


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    first, *rest = module.split(".")
    if first != "rhostream":
        return None
    return rest[0] if rest and rest[0] in ROOMS else ""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_downward(room: str) -> None:
    for path in sorted((ROOT / (room or "rhostream")).rglob("*.py")):
        # `from rhostream import x` names the root, whatever x is.
        used = {room_of(module) for module in imports(path)} - {None, room}
        assert used <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {sorted(used - MAY_IMPORT[room])}"


def test_all_code_imports_the_rooms_by_their_installed_names() -> None:
    for name in ("rhostream", *ROOMS, "tests", "benchmarks", "examples"):
        for path in sorted((ROOT / name).rglob("*.py")):
            direct = {module.split(".")[0] for module in imports(path)} & set(ROOMS)
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


def test_loaders_and_selection_pull_in_neither_the_pipeline_nor_click_nor_duckdb() -> None:
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


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; sys.argv = ['rho', *{arguments!r}, '--help']\nfrom rhostream.cli.main import main; main()"
    assert loaded(code, *HEAVY) == []
