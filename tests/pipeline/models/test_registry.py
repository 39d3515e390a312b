"""Models by name, their initialization, and the weights they start from."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from rhostream import ConfigError
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.pipeline.models.networks import BUILT_IN
from rhostream.pipeline.models.registry import build_model, takes_any_size


def image_spec(size: int = 32, channels: int = 3) -> ImageSpec:
    return ImageSpec.from_dict({"size": size, "channels": channels})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILT_IN, "resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_a_model_takes_its_spec_and_gives_each_class_logit(name: str, size: int, channels: int) -> None:
    model = build_model(name, 14, image_spec(size, channels), seed=0).eval()
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 14)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILT_IN, "resnet18", "vit_b_32"])
def test_which_models_take_images_of_another_size(name: str) -> None:
    model = build_model(name, 14, image_spec(64), seed=0).eval()
    try:
        taken = model(torch.zeros(2, 3, 32, 32)).shape == (2, 14)
    except (RuntimeError, AssertionError):
        taken = False
    assert takes_any_size(name) == taken


@pytest.mark.slow
def test_a_vision_transformer_follows_the_size_of_the_view() -> None:
    model = build_model("vit_b_32", 5, image_spec(64), seed=0).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"vit_b_32.*50 pixels.*size"):
        build_model("vit_b_32", 5, image_spec(50), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strided_cnn", "resnet18"])
def test_initialization_depends_on_the_seed_and_spares_the_global_generator(name: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = build_model(name, 4, image_spec(), seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)
    again, other = (build_model(name, 4, image_spec(), seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
def test_a_model_of_timm_takes_its_spec_and_downloads_nothing() -> None:
    pytest.importorskip("timm", reason="NOT TESTED: timm is not installed")
    for name, size, channels in (("resnet18", 32, 1), ("vit_tiny_patch16_224", 64, 3), ("resnet18.a1_in1k", 32, 3)):
        model = build_model(f"timm/{name}", 5, image_spec(size, channels), seed=0).eval()
        assert model(torch.zeros(2, channels, size, size)).shape == (2, 5)
    assert takes_any_size("timm/resnet18")
    assert not takes_any_size("timm/vit_tiny_patch16_224")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/resnet17", "timm/hf-hub:timm/resnet18", "timm/"])
def test_a_name_that_timm_has_no_model_for_is_refused(name: str) -> None:
    pytest.importorskip("timm", reason="NOT TESTED: timm is not installed")
    with pytest.raises(ConfigError, match="not known to timm"):
        build_model(name, 4, image_spec(), seed=0)


def test_a_side_that_no_patches_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"small_vit.* 37 pixels.*a multiple of 8"):
        build_model("small_vit", 3, image_spec(37), seed=0)


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(ConfigError, match=r"'resnet5'.*resnet50"):
        build_model("resnet5", 4, image_spec(), seed=0)


def test_an_image_too_small_for_convolutions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"16 pixels"):
        build_model("strided_cnn", 4, image_spec(8), seed=0)
    assert build_model("mlp", 4, image_spec(8), seed=0)(torch.zeros(1, 3, 8, 8)).shape == (1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_another_class_list_keep_all_but_the_head(tmp_path: Path, suffix: str) -> None:
    given = build_model("resnet18", 10, image_spec(), seed=1).state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in given.items()}}, path)
    else:
        safetensors.torch.save_file(given, path)
    fresh, loaded = (build_model("resnet18", 4, image_spec(), seed=2, weights=file) for file in (None, str(path)))
    assert fresh is not None
    assert torch.equal(loaded.state_dict()["layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])
    assert torch.equal(loaded.state_dict()["fc.weight"], fresh.state_dict()["fc.weight"])
    whole = build_model("resnet18", 10, image_spec(), seed=2, weights=str(path))
    assert torch.equal(whole.state_dict()["fc.weight"], given["fc.weight"])


@pytest.mark.slow
def test_color_weights_serve_luma_as_they_would_a_gray_picture(tmp_path: Path) -> None:
    color = build_model("resnet18", 4, image_spec(), seed=1).eval()
    path = tmp_path / "color.safetensors"
    safetensors.torch.save_file(color.state_dict(), path)
    luma = build_model("resnet18", 4, image_spec(channels=1), seed=9, weights=str(path)).eval()
    gray = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(luma(gray), color(gray.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


def test_weights_of_another_model_or_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(build_model("mlp", 4, image_spec(), seed=1).state_dict(), path)
    with pytest.raises(ConfigError, match=r"not those of model 'bn_cnn'"):
        build_model("bn_cnn", 4, image_spec(), seed=0, weights=str(path))
    with pytest.raises(ConfigError, match="no such file"):
        build_model("bn_cnn", 4, image_spec(), seed=0, weights=str(tmp_path / "none.pt"))
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
    with pytest.raises(ConfigError, match="tensors alone"):
        build_model("bn_cnn", 4, image_spec(), seed=0, weights=str(tmp_path / "pickled.pt"))
