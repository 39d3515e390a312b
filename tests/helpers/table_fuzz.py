"""A seeded fuzz of tables of texts: hostile cells and damaged files go through `rho shards`, and every row is counted.

A trial ends "kept" (samples and rejects add up to the entries, and the stream gives what was stored) or "told" (one
line says what is wrong), or it has failed: "unaccounted", "traceback", or "hang".
"""

import csv
import io
import json
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from helpers.artifact_fuzz import HangError, limited
from helpers.damage import BYTES
from rhostream.errors import RhostreamError
from rhostream.loaders.decode import ReadOptions
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import CandidateStream
from rhostream.pipeline.config import resolve_manifest
from rhostream.pipeline.shards import write_shards

Outcome = Literal["kept", "told", "unaccounted", "traceback", "hang"]
FAILURES: Final[tuple[Outcome, ...]] = ("unaccounted", "traceback", "hang")
FORMS: Final = ("csv", "tsv", "jsonl", "parquet")

_LONGEST: Final = 400  # bytes of a text, above which it is refused
_WORDS: Final = ("rain", "Röntgen", "雨", "was", "it", "so", "fine", "🌧️", "not", "winter")
_HOSTILE: Final = (
    *(
        "",
        " ",
        "\u00a0",
        "\t",
        "\n",
        "\r\n",
        "\r",
        '"',
        '""',
        "'",
        ",",
        ";",
        "|",
        "\\",
        "\\n",
        "\x00",
        "\x1e",
        "\x1b[2J",
    ),
    *("\u202etxet", "\u2028", "\ufeff", "\ud7ff", "\U0010ffff", "NA", "null", "nan", "true", "1e999", "=1+1", "../a"),
    *("<script>", "${x}", "%s", "{}", "[1]", "a" * (_LONGEST + 1), "é" * (_LONGEST // 2), "e\u0301"),
)
_LABELS: Final = ("good", "bad")
_HOSTILE_LABELS: Final = ("", "Good", "good ", "2", "-1", "None", "good,bad", "\x00", "\u202egood")

#: What is done to lines of a file; of Parquet, whose bytes are no lines, to its bytes.
LINES: Final = ("ragged", "odd quote", "NUL", "bad UTF-8", "blank lines", "carriage returns", "mark", "names again")
#: How the columns of a Parquet file are typed, where not as texts.
TYPES: Final = ("large", "bytes", "dictionary", "numbers", "lists", "structs", "nulls")
DAMAGES: Final = ("hostile cells", *BYTES, *LINES, *TYPES)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was done, and what came of it; `detail` is the message, or the last line of the traceback."""

    number: int
    form: str
    damage: str
    outcome: Outcome
    detail: str


def run(folder: Path, numbers: Iterable[int], seed: int = 0) -> Iterator[Trial]:
    """The trials of these numbers, each a function of the seed and its number alone."""
    for number in numbers:
        chance = random.Random(f"{seed} {number}")
        form, damage = chance.choice(FORMS), chance.choice(DAMAGES)
        if damage in TYPES and form != "parquet":
            damage = chance.choice(LINES)
        elif damage in LINES and form == "parquet":
            damage = chance.choice(TYPES)
        place = folder / "trial"
        shutil.rmtree(place, ignore_errors=True)
        (place / "corpus").mkdir(parents=True)
        rows = _rows(chance, hostile=damage == "hostile cells")
        content = _damaged(_written(rows, form, damage), damage, chance)
        (place / "corpus" / f"texts.{form}").write_bytes(content)
        outcome, detail = _asked(place, chance, len(rows) if damage == "hostile cells" else None)
        yield Trial(number=number, form=form, damage=damage, outcome=outcome, detail=detail)


def _rows(chance: random.Random, *, hostile: bool) -> list[dict[str, str]]:
    """At least half of them are sound, so that the corpus is not refused as a whole."""
    rows = []
    for number in range(chance.randrange(20, 40)):
        text = f"{' '.join(chance.choices(_WORDS, k=chance.randrange(1, 9)))} {number}"
        row = {"text": text, "other": f"claim {number}", "label": _LABELS[number % 2], "id": f"d{number}"}
        if hostile and chance.random() < 0.4:
            name = chance.choice(("text", "text", "other", "label"))
            told = chance.choice(_HOSTILE_LABELS if name == "label" else _HOSTILE)
            row[name] = told if chance.random() < 0.5 or name == "label" else f"{text} {told} {text}"
        rows.append(row)
    return rows


def _written(rows: list[dict[str, str]], form: str, damage: str) -> bytes:
    """The rows as a sound file of this form."""
    if form == "parquet":
        buffer = io.BytesIO()
        pq.write_table(_typed(rows, damage), buffer)
        return buffer.getvalue()
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(rows)).encode()
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter="," if form == "csv" else "\t")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def _typed(rows: list[dict[str, str]], kind: str) -> pa.Table:
    texts = [row["text"] for row in rows]
    found: dict[str, Any] = {
        "large": pa.array(texts, pa.large_string()),
        "bytes": pa.array([b"\xff" + text.encode() if at % 5 == 0 else text.encode() for at, text in enumerate(texts)]),
        "dictionary": pa.array(texts).dictionary_encode(),
        "numbers": pa.array(range(len(texts))),
        "lists": pa.array([[text] for text in texts]),
        "structs": pa.array([{"a": text} for text in texts]),
        "nulls": pa.array([None if at % 3 == 0 else text for at, text in enumerate(texts)], pa.string()),
    }
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table(columns | ({"text": found[kind]} if kind in found else {}))


def _damaged(content: bytes, damage: str, chance: random.Random) -> bytes:
    if damage in BYTES:
        return BYTES[damage](content, chance)
    if damage not in LINES:
        return content
    lines = content.splitlines(keepends=True)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(lines))
        line = lines[at]
        middle = chance.randrange(len(line))
        lines[at] = {
            "ragged": chance.choice((b"a\n", b"a,b\tc,d\te,f\tg,h\n", line.rstrip() + b",\t1\n", b"{}\n", b"[1]\n")),
            "odd quote": line[:middle] + b'"' + line[middle:],
            "NUL": line[:middle] + b"\0" + line[middle:],
            "bad UTF-8": line[:middle] + chance.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8")) + line[middle:],
            "blank lines": line + b"\n" * chance.randrange(1, 3),
            "carriage returns": line.rstrip(b"\n") + chance.choice((b"\r", b"\r\n", b"\r\r\n")),
            "mark": (b"\xef\xbb\xbf" if chance.random() < 0.5 else b"\xff\xfe") + line,
            "names again": lines[0] + line,
        }[damage]
    return b"".join(lines)


def _asked(place: Path, chance: random.Random, rows: int | None) -> tuple[Outcome, str]:
    """Write shards of the table and read them.

    Args:
        rows: that the file is known to have; None where the damage may have changed that.
    """
    options: dict[str, Any] = {"text_column": "text"}
    if chance.random() < 0.3:
        options["second_text_column"] = "other"
    if chance.random() < 0.3:
        options["key_column"] = "id"
    asked = {"name": "fuzz", "format": "table", "root": str(place / "corpus"), "holdout": 0.2, "options": options}
    asked |= {"max_text_bytes": _LONGEST, "classes": _LABELS, "shard_size": 16, "text": {"length": 16}}
    workspace = Workspace(place / "workspace")
    try:
        with limited():
            summary = write_shards(workspace, resolve_manifest(("fuzz", asked)), workers=0)
            samples, rejects = sum(summary.samples.values()), sum(summary.rejects.values())
            read = _read(workspace, summary.samples.get("train", 0))
    except RhostreamError as error:
        text = str(error)
        return ("told", text) if "\n" not in text.strip() else ("traceback", text)
    except HangError:
        return "hang", ""
    except BaseException as error:  # noqa: BLE001 - what a user would see as a traceback
        return "traceback", f"{type(error).__name__}: {error}"
    told = f"{summary.entries} entries, {samples} samples, {rejects} rejects, {read} read of {summary.samples}"
    whole = summary.entries == samples + rejects and read == summary.samples.get("train", 0)
    return ("kept" if whole and rows in (None, summary.entries) else "unaccounted"), told


def _read(workspace: Workspace, count: int) -> int:
    """Training texts that the stream gives."""
    if not count:
        return 0
    options = ReadOptions(threads=1, workers=0)
    stream = CandidateStream(workspace, super_batch_size=count, texts=True, read_options=options)
    return sum(len(batch.texts or ()) for batch in stream)
