"""Text specs and their tokenizers."""

import json

import numpy as np
import pytest
from helpers.texts import write_tokenizer

from rhostream.errors import ConfigError, UndecodableTextError
from rhostream.loaders.decode import (
    PAIR_SEPARATOR,
    TextSpec,
    decode_text,
    excerpt,
    keep_tokenizer,
    normalized_hash,
    spec_of,
)
from rhostream.loaders.decode.tokenizers import tokenizer_of
from rhostream.loaders.storage import Workspace


def ids_of(spec, texts, workspace=None):
    return [each.tolist() for each in tokenizer_of(spec, workspace).ids(texts, spec.length)]


def test_words_are_the_same_in_any_case():
    spec = TextSpec(length=6)
    first, second = ids_of(spec, ["Good film, bad film!", "good FILM , bad film !"])
    assert first == second
    assert len(first) == 6
    assert first[1] == first[4]
    assert len(set(first)) == 5
    assert min(first) > 1


def test_pair_of_texts_keeps_a_part_of_each():
    spec = TextSpec(length=6)
    (ids,) = ids_of(spec, [f"a b c d e f g{PAIR_SEPARATOR}x y"])
    assert len(ids) == 6
    assert ids[3:] == [1, *ids_of(spec, ["x y"])[0]]


def test_tokenizer_file_says_vocabulary_and_padding(tmp_path):
    spec = TextSpec(tokenizer=str(write_tokenizer(tmp_path)), length=4)
    assert (spec.vocabulary, spec.pad_id) == (6, 4)
    assert ids_of(spec, ["good bad film good bad", f"good{PAIR_SEPARATOR}film x"]) == [[1, 2, 3, 1], [1, 5, 3, 0]]
    assert TextSpec(tokenizer=str(tmp_path), length=4) == spec


def test_workspace_keeps_the_tokenizer_that_a_spec_was_made_with(tmp_path):
    file = write_tokenizer(tmp_path / "elsewhere")
    spec, workspace = TextSpec(tokenizer=str(file), length=4), Workspace(tmp_path / "workspace")
    keep_tokenizer(workspace, spec)
    file.unlink()
    (tmp_path / "workspace").rename(tmp_path / "moved")
    found = spec_of(json.loads(json.dumps(spec.to_dict())))
    assert found == spec
    assert ids_of(found, ["bad film"], Workspace(tmp_path / "moved")) == [[2, 3]]
    changed = tmp_path / "moved" / spec.to_dict()["tokenizer"]
    changed.write_text(changed.read_text().replace("good", "fine"))
    with pytest.raises(ConfigError, match="another file"):
        ids_of(spec_of(spec.to_dict() | {"length": 5}), ["bad"], Workspace(tmp_path / "moved"))


@pytest.mark.parametrize("name", ["none.json", "broken.json"])
def test_tokenizer_that_is_none_is_one_clear_error(tmp_path, name):
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ConfigError, match=name):
        TextSpec(tokenizer=str(tmp_path / name))


def test_function_is_not_kept_in_a_file():
    spec = spec_of(TextSpec(tokenizer=lambda texts: [[1]] * len(texts), vocabulary=9).to_dict())
    assert spec.to_dict()["vocabulary"] == 9
    with pytest.raises(ConfigError, match="give it again"):
        ids_of(spec, ["x"])


def test_function_that_gives_too_few_rows_is_refused():
    with pytest.raises(ConfigError, match="1 lists of ids for 2 texts"):
        ids_of(TextSpec(tokenizer=lambda texts: [[1]]), ["x", "y"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b" \n", "empty"), (b"a\0", "nul_bytes"), (b"\xff", "not_utf8"), (b"abc", "too_long")],
)
def test_bytes_that_are_no_text_have_a_reason(data, reason):
    with pytest.raises(UndecodableTextError) as error:
        decode_text(data, max_bytes=2)
    assert error.value.reason == reason


def test_excerpt_is_one_line_and_hash_knows_no_case():
    assert excerpt("A\n b\t c") == "A b c"
    assert excerpt("x" * 500) == "x" * 159 + "…"
    assert normalized_hash("A  b\n") == normalized_hash("a B")
    assert normalized_hash("ab") != normalized_hash("a b")


def test_rows_of_unlike_lengths_join():
    import torch

    spec = TextSpec(length=4)
    joined = spec.joined([torch.tensor([[1, 2]], dtype=torch.int32), torch.tensor([[3], [4]], dtype=torch.int32)])
    assert joined.tolist() == [[1, 2], [3, -1], [4, -1]]
    assert np.array_equal(spec.blank(1), [[-1] * 4])
