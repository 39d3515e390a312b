"""The names of the tests are sentences that are quickly read."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_test_name_has_more_than_ten_words() -> None:
    names = {
        name: path.relative_to(TESTS)
        for path in sorted(TESTS.rglob("test_*.py"))
        for name in re.findall(r"^ *def test_(\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(names) > 500
    assert {name: path for name, path in names.items() if len(name.split("_")) > 10} == {}
