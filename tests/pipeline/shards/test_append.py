"""A corpus that has grown is added to its workspace: new units, and nothing that was there is touched."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.shards_corpus import CLASSES, contents, manifest_of, rejects, samples, write_corpus, write_table
from helpers.support import jpeg, put

from rhostream import WorkspaceError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.shards import hash_buckets
from rhostream.pipeline.shards.write import ShardsSummary, write_shards


def rows(numbers: Iterable[int]) -> list[tuple[str, str]]:
    """Rows of the table for these images, as `write_corpus` has them."""
    return [(f"photos/{number % 7}/{number},{number * 31}.jpg", CLASSES[number % 3]) for number in numbers]


def grow(corpus: Path, numbers: Iterable[int], *more: tuple[str, str]) -> None:
    """The corpus then has these images, and the further rows."""
    table = rows(numbers)
    for (path, _), number in zip(table, numbers, strict=True):
        put(corpus / path, jpeg(number))
    write_table(corpus, [*table, *more])


def again(workspace: Path, corpus: Path, *, append: bool = True, **settings: object) -> ShardsSummary:
    return write_shards(workspace, manifest_of(corpus, **settings), workers=0, append=append)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A finished workspace of 40 entries in 3 units, two of them bad, and its corpus."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1785542400")
    corpus = write_corpus(tmp_path / "corpus", 38, [("gone.jpg", "cat"), ("photos/0/0,0.jpg", "dog")])
    write_shards(tmp_path / "w", manifest_of(corpus), workers=0)
    return tmp_path / "w", corpus


BAD = (("gone.jpg", "cat"), ("photos/0/0,0.jpg", "dog"))


def test_what_is_new_gets_new_units_the_old_ones_stay(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    before, splits = contents(workspace), {row["key"]: row["split"] for row in samples(workspace)}
    fingerprint = CorpusMetadata.read(Workspace(workspace)).fingerprint
    grow(corpus, range(58), *BAD)
    summary = again(workspace, corpus)
    assert (summary.added, summary.removed, summary.changed) == (20, 0, 0)
    assert (summary.entries, summary.units, summary.units_made) == (60, 5, 2)
    after = contents(workspace)
    assert {name: after[name] for name in before if name != "corpus.json"} == {
        name: digest for name, digest in before.items() if name != "corpus.json"
    }
    found = {row["key"]: row["split"] for row in samples(workspace)}
    assert found.items() > splits.items()
    assert len(found) == 58
    (told,) = CorpusMetadata.read(Workspace(workspace)).appended
    assert (told.date, told.entries, told.units, told.first_unit) == ("2026-08-01", 20, 2, 3)
    assert told.fingerprint == fingerprint


def test_splits_are_those_of_a_workspace_made_at_once(place: tuple[Path, Path], tmp_path: Path) -> None:
    workspace, corpus = place
    grow(corpus, range(58), *BAD)
    again(workspace, corpus)
    write_shards(tmp_path / "whole", manifest_of(corpus), workers=0)
    split = {row["key"]: (row["split"], row["label"], row["content_hash"]) for row in samples(workspace)}
    assert split == {
        row["key"]: (row["split"], row["label"], row["content_hash"]) for row in samples(tmp_path / "whole")
    }
    told = [(row["source"], row["reason"]) for row in rejects(workspace)]
    assert sorted(told) == sorted((row["source"], row["reason"]) for row in rejects(tmp_path / "whole"))


def test_appended_twice_and_run_again_it_changes_nothing(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    grow(corpus, range(50), *BAD)
    again(workspace, corpus)
    grow(corpus, range(55), *BAD)
    assert (again(workspace, corpus).added, again(workspace, corpus).added) == (5, 0)
    whole = contents(workspace)
    (workspace / "shards/train-000003.tar").unlink()
    (workspace / "shards/train-000000.tar").unlink()
    assert again(workspace, corpus, append=False).units_made == 2
    assert contents(workspace) == whole
    assert [each.first_unit for each in CorpusMetadata.read(Workspace(workspace)).appended] == [3, 4]


def test_without_append_a_grown_corpus_is_refused_and_told_how(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    grow(corpus, range(39), *BAD)
    with pytest.raises(WorkspaceError, match=r"listed 40 entries, this one lists 41.*--append"):
        again(workspace, corpus, append=False)
    again(workspace, corpus)
    grow(corpus, range(41), *BAD)
    with pytest.raises(WorkspaceError, match="lacks 2 entries that the corpus lists now: add them with --append"):
        again(workspace, corpus, append=False)


def test_removed_and_changed_entries_are_counted_and_stay(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    before = samples(workspace)
    grow(corpus, range(4, 42), *BAD[:1], (rows([3])[0][0], CLASSES[1]))
    summary = again(workspace, corpus)
    # Of 0 to 2 and the second row of the first image nothing is left; the label of 3 was another one.
    assert (summary.added, summary.removed, summary.changed) == (4, 4, 1)
    keys = {row["key"]: row for row in samples(workspace)}
    assert all(keys[row["key"]] == row for row in before)
    with pytest.raises(WorkspaceError, match="4 of its entries are gone from it, 1 differ"):
        again(workspace, corpus, append=False)
    (workspace / "shards/train-000000.tar").unlink()
    with pytest.raises(WorkspaceError, match="unit 000000 is damaged, and cannot be made again"):
        again(workspace, corpus)


def test_a_new_entry_under_a_taken_key_is_a_reject(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    grow(corpus, range(38), *BAD, (rows([5])[0][0], "bird"))
    assert again(workspace, corpus).added == 1
    (new,) = [row for row in rejects(workspace) if row["source"] == rows([5])[0][0]]
    assert (new["reason"], new["detail"]) == ("duplicate_key", f"key {new['key']} belongs to {new['source']}")


@pytest.mark.slow
def test_a_killed_append_goes_on_to_the_same_bytes(place: tuple[Path, Path], tmp_path: Path) -> None:
    workspace, corpus = place
    card = (workspace / "corpus.json").read_bytes()
    grow(corpus, range(60), *BAD)
    again(workspace, corpus)
    whole = contents(workspace)
    put(workspace / "corpus.json", card)  # as it is until the last unit is made
    (workspace / "rejects/000004.parquet").unlink()
    assert again(workspace, corpus).units_made == 1
    assert contents(workspace) == whole
    put(workspace / "corpus.json", card)
    grow(corpus, range(61), *BAD)  # and meanwhile it has grown further
    again(workspace, corpus)
    assert len(samples(workspace)) == 61


@pytest.mark.slow
def test_a_corpus_larger_than_memory_grows_the_same(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, corpus = place
    shutil.copytree(workspace, tmp_path / "small")
    grow(corpus, range(60), *BAD)
    again(workspace, corpus)
    monkeypatch.setattr(hash_buckets, "_MOST_BYTES", 1000)
    again(tmp_path / "small", corpus)
    assert contents(tmp_path / "small") == contents(workspace)


@pytest.mark.slow
def test_irreducible_losses_of_the_old_shards_stay_valid(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    train_il(workspace, ILTrainConfig(model="mlp", steps=2, device="cpu"))
    score_il(workspace, ILScoreConfig(device="cpu"))
    before = contents(workspace / "il/mlp/scores")
    grow(corpus, range(58), *BAD)
    again(workspace, corpus)
    found = score_il(workspace, ILScoreConfig(device="cpu"))
    new = {row["shard"] for row in samples(workspace) if row["split"] == "train" and str(row["shard"])[-1] in "34"}
    assert found.scored_shards == len(new) == 2
    assert contents(workspace / "il/mlp/scores").items() > before.items()


def test_a_lost_index_is_told_of_before_anything_is_appended(place: tuple[Path, Path]) -> None:
    workspace, corpus = place
    (workspace / "index/train-000001.parquet").unlink()
    grow(corpus, range(40), *BAD)
    with pytest.raises(WorkspaceError, match=r"train-000001\.parquet is missing.*restore it, or remake"):
        again(workspace, corpus)


def test_a_multi_label_corpus_grows_too(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 20)
    manifest = manifest_of(corpus, task="multi_label", options={"separator": ";"})
    write_shards(tmp_path / "w", manifest, workers=0)
    grow(corpus, range(30))
    summary = write_shards(tmp_path / "w", manifest, workers=0, append=True)
    assert (summary.added, summary.removed, summary.changed) == (10, 0, 0)
