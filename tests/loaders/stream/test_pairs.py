"""Super-batches of image-text pairs: tokens beside images, stored tokens, thumbnails, resuming and several ranks."""

import numpy as np
import pytest
import torch
from helpers.pair_corpus import pair, write_pairs

from rhostream.errors import ConfigError
from rhostream.loaders.decode import NO_TOKEN, ImageSpec, TextSpec, tokenizer_of
from rhostream.loaders.stream import CandidateStream
from rhostream.pipeline.config import ThumbnailsConfig, TokenizeConfig
from rhostream.pipeline.thumbnails import write_thumbnails
from rhostream.pipeline.tokens import write_tokens


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 120)


def stream_of(workspace, **settings):
    return CandidateStream(workspace, **{"super_batch_size": 20, "seed": 3} | settings)


def test_images_and_tokens_of_a_pair_come_together(workspace):
    batch = next(iter(stream_of(workspace, text_spec=TextSpec(length=6))))
    assert batch.fields["image"].shape == (20, 3, 16, 16)
    expected = tokenizer_of(TextSpec(length=6)).ids(list(batch.texts), 6)
    for key, text, image, row, ids in zip(
        batch.keys, batch.texts, batch.fields["image"], batch.fields["text"], expected, strict=True
    ):
        found, caption, _ = pair(int(key))
        assert text == caption
        assert row[row != NO_TOKEN].tolist() == list(ids)
        assert np.array_equal(image.numpy(), ImageSpec(size=16).pixels(found))
    inputs = batch.normalized()
    assert {*inputs.fields} == {"image", "input_ids", "attention_mask"}
    assert {*inputs.tokens} == {"input_ids", "attention_mask"}


def test_stored_tokens_and_exact_thumbnails_give_the_same_pairs(tmp_path):
    workspace = write_pairs(tmp_path, 60)
    before = list(stream_of(workspace))
    write_tokens(workspace, TokenizeConfig(workers=0))
    write_thumbnails(workspace, ThumbnailsConfig(size=16, format="raw", workers=0))
    after = list(stream_of(workspace, thumbnails="16-raw"))
    for one, other in zip(before, after, strict=True):
        assert list(one.keys) == list(other.keys)
        assert list(one.texts) == list(other.texts)
        assert all(torch.equal(one.fields[name], other.fields[name]) for name in ("image", "text"))


def test_stream_of_pairs_resumes_at_the_next_super_batch(workspace):
    whole = list(stream_of(workspace))
    resumed = stream_of(workspace)
    resumed.load_state_dict(whole[1].state)
    rest = list(resumed)
    assert [list(each.texts) for each in rest] == [list(each.texts) for each in whole[2:]]
    assert all(torch.equal(a.fields["text"], b.fields["text"]) for a, b in zip(rest, whole[2:], strict=True))


def test_each_rank_reads_its_images_and_knows_all_captions(workspace):
    alone = next(iter(stream_of(workspace)))
    parts = [next(iter(stream_of(workspace, dp_rank=rank, dp_world_size=2))) for rank in range(2)]
    for part in parts:
        whole = part.part.whole
        assert torch.equal(whole.fields["text"], alone.fields["text"])
        assert list(whole.keys) == list(alone.keys)
        at = torch.from_numpy(part.part.positions)
        assert all(torch.equal(part.fields[name], alone.fields[name][at]) for name in ("image", "text"))
    assert sorted([*parts[0].keys, *parts[1].keys]) == sorted(alone.keys)


def test_text_spec_of_a_corpus_without_captions_is_refused(tmp_path):
    from helpers.texts import write_texts

    with pytest.raises(ConfigError, match="text_spec"):
        CandidateStream(write_texts(tmp_path, 60), text_spec=TextSpec())
