"""One word, one meaning: names that were given up stand only where former workspaces are read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("rhostream", "loaders", "selection", "pipeline", "cli", "tests", "examples", "data_manifests")
#: They translate former names, test that, or list them.
ALLOWED = {"rhostream/former.py", "tests/test_former_workspaces.py", "tests/test_vocabulary.py"}

#: What stood for a thing that has another name now.
FORMER_NAMES = {
    "spec or thumbnails": r"\bScoringView|scoring[ _-]views?\b|[Rr]enditions?|RENDITION",
    "StoredRefs": r"\bPicks\b|\bImageRefs\b",
    "CandidateTable": r"\bDrawn\b[^,]|\bDrawer\b",
    "StreamPosition": r"\bPlace\b",
    "SelectionSetup": r"\bChooser\b",
    "metadata": r"\b(Corpus|IL)Card\b",
    "Scope of a question": r"\bAsked\(",
    "exclusive_lock": r"\bonly_writer\b",
    "with_retries": r"\bpersistently\b",
    "validation": r"held[ _-]back|HELD_BACK",
    "American spelling": (
        r"[Nn]ormalis|[Mm]islabell|MISLABELL|[Cc]olour|COLOUR|\b[Gg]rey|[Oo]ptimiser|[Bb]ehaviour|(?<!aria-)[Ll]abelled|[Ff]avour"
    ),
}


def files() -> Iterator[Path]:
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            kept = path.suffix in (".py", ".pyi", ".toml", ".html", ".css", ".js")
            if kept and "__pycache__" not in path.parts and str(path.relative_to(ROOT)) not in ALLOWED:
                yield path


@pytest.mark.parametrize("name", FORMER_NAMES)
def test_former_name_is_found_nowhere(name: str) -> None:
    former = re.compile(FORMER_NAMES[name])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if former.search(line)
    ]
    assert not found, "\n".join(found)


def test_search_sees_the_module_that_translates_former_names() -> None:
    text = (ROOT / "rhostream/former.py").read_text()
    assert {"held_back", "scoring_view"} <= set(re.findall(r"\w+", text))
    assert len(list(files())) > 200
