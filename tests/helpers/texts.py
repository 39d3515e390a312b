"""A small corpus of texts: made sentences whose words tell their class, some of them labeled wrongly."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config import resolve_manifest
from rhostream.pipeline.shards import write_shards

GOOD, BAD, OTHER = (
    ("lovely", "warm", "bright", "splendid", "gentle"),
    ("awful", "cold", "dull", "broken", "bitter"),
    ("the", "a", "film", "coat", "winter", "street", "was", "is", "seems", "of", "my", "friend"),
)


def sentence(number: int) -> tuple[str, int]:
    """A sentence and its class, a function of its number."""
    random = np.random.default_rng(number)
    label = int(random.integers(2))
    words = list(random.choice(OTHER, int(random.integers(10, 30) if number % 5 == 0 else random.integers(2, 8))))
    words += list(random.choice((BAD, GOOD)[label], 3))
    random.shuffle(words)
    return " ".join(words), label


def write_table(folder: Path, rows: int, *, wrong: float = 0.0, test_rows: int = 0) -> Path:
    """`texts.tsv` with the columns text, label, clean_label and split."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "texts.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["text", "label", "clean_label", "split"])
        for number in range(rows + test_rows):
            text, label = sentence(number)
            moved = number < rows and np.random.default_rng((number, 1)).random() < wrong
            named = ("bad", "good")
            writer.writerow([text, named[label ^ moved], named[label], "" if number < rows else "test"])
    return path


def text_manifest(root: Path, **settings: Any) -> Any:
    """Of such a table."""
    options = {"text_column": "text", "split_column": "split"} | settings.pop("options", {})
    usual = {"name": "texts", "format": "table", "root": str(root), "holdout": 0.4, "text": {"length": 32}}
    return resolve_manifest(("test", usual | settings | {"options": options}))


def write_texts(
    folder: Path, rows: int = 400, *, wrong: float = 0.0, test_rows: int = 60, **settings: Any
) -> Workspace:
    """A workspace of texts, made by `write_shards`."""
    root = folder / "corpus"
    write_table(root, rows, wrong=wrong, test_rows=test_rows)
    workspace = Workspace(folder / "workspace")
    write_shards(workspace, text_manifest(root, **settings), workers=0)
    return workspace


def write_tokenizer(folder):
    """A tokenizer.json of whole words, with a [PAD] that is not 0."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "good": 1, "bad": 2, "film": 3, "[PAD]": 4, "[SEP]": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A", pair="$A [SEP] $B", special_tokens=[("[SEP]", 5)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
