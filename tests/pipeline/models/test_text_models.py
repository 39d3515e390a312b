"""Classifiers of texts."""

import json

import pytest
import torch

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec, TextSpec
from rhostream.pipeline.config import TEXT_MODELS
from rhostream.pipeline.models import build_model


def tokens(lengths, width):
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(2, 1_000, (len(lengths), width), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids * mask, "attention_mask": mask}


def tiny_albert(folder):
    """A randomly initialized ALBERT, as a local folder."""
    transformers = pytest.importorskip("transformers")
    config = transformers.AlbertConfig(
        vocab_size=16_384,
        embedding_size=16,
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    transformers.AlbertForSequenceClassification(config).save_pretrained(folder)
    return f"transformers/{folder}"


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_padding_changes_no_logits(name):
    model = build_model(name, 3, TextSpec(length=64), seed=0).eval()
    given = tokens([9, 1, 3], 9)
    padded = {key: torch.nn.functional.pad(value, (0, 20)) for key, value in given.items()}
    assert torch.allclose(model(**given), model(**padded), atol=1e-5)
    alone = {key: value[2:, :3] for key, value in given.items()}
    assert torch.allclose(model(**given)[2:], model(**alone), atol=1e-5)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_initialization_follows_the_seed_alone(name):
    first, again, other = (build_model(name, 2, TextSpec(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_text_without_tokens_has_finite_logits(name):
    model = build_model(name, 2, TextSpec(length=8), seed=0)
    assert torch.isfinite(model(**tokens([0, 2], 4))).all()


@pytest.mark.slow
def test_albert_of_a_local_folder_keeps_its_weights(tmp_path):
    name = tiny_albert(tmp_path / "albert")
    spec = TextSpec(length=64)
    model, other = (build_model(name, 2, spec, seed=seed).eval() for seed in (1, 2))
    given = tokens([7, 2], 7)
    assert model(**given).logits.shape == (2, 2)
    embedding = "albert.embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[embedding], other.state_dict()[embedding])
    with pytest.raises(ConfigError, match="--text-length 64"):
        build_model(name, 2, TextSpec(length=65), seed=0)


def tiny_sentence_encoder(folder, pooling):
    """A randomly initialized BERT as sentence-transformers saves it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "max_position_embeddings": 64}
    config = transformers.BertConfig(vocab_size=16_384, num_attention_heads=2, num_hidden_layers=2, **sizes)
    torch.manual_seed(0)
    encoder = transformers.BertModel(config)
    encoder.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return encoder.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("key", "first_token"), [("mean_tokens", False), ("cls_token", True)])
def test_sentence_encoder_keeps_its_pooling(tmp_path, key, first_token):
    encoder = tiny_sentence_encoder(tmp_path, {"pooling_mode_max_tokens": False, f"pooling_mode_{key}": True})
    model = build_model(f"transformers/{tmp_path}", 3, TextSpec(length=64), seed=0).eval()
    given = tokens([7, 2], 7)
    with torch.no_grad():
        hidden = encoder(**given).last_hidden_state
        pooled = hidden[:, 0] if first_token else torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
        assert torch.allclose(model(**given), model.head(pooled), atol=1e-5)
    # Processes that train together wait for the gradient of every parameter.
    model(**given).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_sentence_encoder_with_another_pooling_is_a_sequence_classifier(tmp_path):
    tiny_sentence_encoder(tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True})
    model = build_model(f"transformers/{tmp_path}", 3, TextSpec(length=64), seed=0)
    assert type(model).__name__ == "BertForSequenceClassification"
    for content, cause in (("[]", "holds no object"), ('{"pooling_mode_', "is not valid JSON")):
        (tmp_path / "1_Pooling" / "config.json").write_text(content)
        with pytest.raises(ConfigError, match=rf"1_Pooling/config\.json {cause}.*; copy the folder again"):
            build_model(f"transformers/{tmp_path}", 3, TextSpec(length=64), seed=0)


def test_unknown_model_of_texts_is_told_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="choose bag_of_ngrams, tiny_transformer, or transformers/FOLDER"):
        build_model("strided_cnn", 2, TextSpec(), seed=0)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        build_model(f"transformers/{tmp_path}", 2, TextSpec(), seed=0)
    with pytest.raises(ConfigError, match="takes texts"):
        build_model("bag_of_ngrams", 2, ImageSpec(), seed=0)
