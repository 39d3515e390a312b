"""Models of open_clip from a local folder, as reference models of pairs."""

import json

import pytest
import torch
from helpers.pair_corpus import write_pairs
from safetensors.torch import save_file

from rhostream import Batch, ImageSpec, Pairs, TextSpec
from rhostream.errors import ConfigError
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.il import ILMetadata, score_il, train_il
from rhostream.pipeline.models import build_pairs_model

open_clip = pytest.importorskip("open_clip")

SIDE, LENGTH = 16, 16
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def architecture(**text):
    return {
        "embed_dim": 16,
        "vision_cfg": {"image_size": SIDE, "patch_size": 4, "layers": 1, "width": 32, "head_width": 16},
        "text_cfg": {
            "context_length": 20, "vocab_size": TextSpec().vocabulary, "layers": 1, "width": 32, "heads": 2, **text,
        },
    }  # fmt: skip


def write_config(folder, **text):
    folder.mkdir()
    content = {"model_cfg": architecture(**text), "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder of the hub's names, with the weights of `theirs`."""
    made = write_config(tmp_path / "clip")
    save_file({name: value.contiguous() for name, value in theirs().state_dict().items()}, made / "model.safetensors")
    return made


def theirs():
    torch.manual_seed(1)
    return open_clip.CLIP(**architecture(), init_logit_scale=2.0, output_dict=True).eval()


def ours(folder, **settings):
    spec, text_spec = ImageSpec(size=SIDE), TextSpec(length=LENGTH)
    return build_pairs_model(f"open_clip/{folder}", spec, text_spec, loss="softmax", seed=0, **settings)


def test_embeddings_are_those_of_open_clip(folder):
    spec, generator = ImageSpec(size=SIDE), torch.Generator().manual_seed(0)
    pixels = torch.rand(5, 3, SIDE, SIDE, generator=generator)
    ids = torch.randint(2, 1_000, (5, LENGTH), generator=generator)
    ids[:, 12:] = 9  # padding, as a tokenizer may have it

    def normalized(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        expected = theirs()(normalized(MEAN, STD), torch.nn.functional.pad(ids[:, :12], (0, 8)))
        tokens = {"input_ids": ids, "attention_mask": (torch.arange(LENGTH) < 12).long().expand(5, -1)}
        fields = {"image": normalized(spec.mean, spec.std), **tokens}
        found = Pairs(loss="softmax").outputs(
            ours(folder).eval(), Batch(fields=fields, labels=torch.zeros(5, dtype=torch.long))
        )
    for name in ("image_features", "text_features", "logit_scale"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_open_clips_model_becomes_a_reference_and_its_table(tmp_path, folder):
    workspace = write_pairs(tmp_path, 100, holdout=200)
    model = f"open_clip/{folder}"
    settings = {"name": "clip", "model": model, "steps": 50, "learning_rate": 1e-3, "device": "cpu", "threads": 1}
    train_il(workspace, ILTrainConfig(**settings))
    score_il(workspace, ILScoreConfig(name="clip", device="cpu", threads=1))
    metadata = ILMetadata.read(workspace, "clip")
    assert metadata.models[0].evaluations[0].step == 0
    (name,) = workspace.names("il/clip/scores")
    table = workspace.read_table(f"il/clip/scores/{name}")
    assert len(table["image_embedding"][0]) == 16
    with torch.no_grad():
        weights = metadata.load(workspace, metadata.models[0])
    assert torch.equal(weights.state_dict()["logit_scale"], theirs().logit_scale) == (metadata.models[0].best_step == 0)


@pytest.mark.parametrize(
    ("text", "spec", "told"),
    [
        ({"context_length": 8}, {}, "takes 8 tokens, the spec gives up to 16: give --text-length 8"),
        ({"vocab_size": 100}, {}, "knows 100 token ids, the tokenizer gives .* --tokenizer"),
        ({"hf_model_name": "roberta-base"}, {}, "nothing is ever downloaded"),
        ({}, {"channels": 1, "mean": (0.5,), "std": (0.5,)}, "takes images of 3 channels"),
        ({}, {"size": 2}, "of images of 2 pixels does not open"),
    ],
)
def test_what_a_model_cannot_take_is_told(tmp_path, text, spec, told):
    made = write_config(tmp_path / "clip", **text)
    with pytest.raises(ConfigError, match=told):
        build_pairs_model(
            f"open_clip/{made}", ImageSpec(**{"size": SIDE, **spec}), TextSpec(length=LENGTH), loss="softmax", seed=0
        )


@pytest.mark.parametrize(
    "content",
    [
        None,
        "[" * 5_000,
        "[]",
        '{"model_cfg": 3}',
        '{"model_cfg": {"text_cfg": null}}',
        '{"model_cfg": {"text_cfg": {}}}',
    ],
)
def test_a_folder_without_a_model_is_told(tmp_path, content):
    if content is not None:
        (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(
        ConfigError, match=r"has no readable open_clip_config.json of two towers; .*nothing is ever downloaded"
    ):
        ours(tmp_path)
