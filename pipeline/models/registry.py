"""Models by name: a few small ones of images and texts, and every classifier of torchvision, timm and transformers."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec, InputSpec, TextSpec
from rhostream.loaders.storage import UnreadableError, decode_safetensors, decode_torch, read_file
from rhostream.pipeline.config import TEXT_MODELS
from rhostream.pipeline.models.networks import BUILT_IN, OF_ONE_SIZE, take_one_channel
from rhostream.pipeline.models.open_clip_models import OPEN_CLIP
from rhostream.pipeline.models.text_models import TRANSFORMERS, build_text_model


def build_model(name: str, num_classes: int, spec: InputSpec, *, seed: int, weights: str | None = None) -> nn.Module:
    """A classifier of what the spec makes of samples to logits (n, num_classes), on the CPU.

    Of images it takes (n, spec.channels, spec.size, spec.size); of texts `input_ids` and `attention_mask`.

    Args:
        name: a key of `BUILT_IN`, a classification model of `torchvision.models`, or `timm/` and a model of timm; of
            texts see `build_text_model`.
        seed: of the initialization; torch's global generators are left as they were.
        weights: a local .safetensors or .pt file of a state dict. A head for another number of classes stays as
            initialized; three-channel weights serve a one-channel spec. Nothing is ever downloaded.

    Raises:
        ConfigError: an unknown name, a spec that the model cannot take, or weights that are not this model's.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        if isinstance(spec, TextSpec):
            model = build_text_model(name, num_classes, spec)
        elif not isinstance(spec, ImageSpec):
            raise ConfigError(f"model {name!r}: no model of {spec.field}s is known")
        elif name in TEXT_MODELS or name.startswith(TRANSFORMERS):
            raise ConfigError(f"model {name!r} takes texts, and the corpus has images: choose another")
        elif name in BUILT_IN:
            model = BUILT_IN[name](num_classes, spec)
        elif name.startswith(_TIMM):
            model = _timm(name, num_classes, spec)
        else:
            model = _torchvision(name, num_classes, spec)
    finally:
        torch.set_rng_state(state)
    if weights is not None:
        _load(model, name, Path(weights), num_classes)
    return model


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


_TIMM: Final = "timm/"


def takes_any_size(name: str) -> bool:
    """Can a model built for one image size be run on another? A flattening or a position per patch forbids it."""
    if name.startswith(_TIMM):
        from timm.models import get_pretrained_cfg

        known = get_pretrained_cfg(name.removeprefix(_TIMM), allow_unregistered=True)
        return not (known and known.fixed_input_size)
    return name not in OF_ONE_SIZE and not name.startswith(("vit_", "maxvit", OPEN_CLIP))


def _torchvision(name: str, num_classes: int, spec: ImageSpec) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, [*BUILT_IN, *known], 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see torchvision.models."
        raise ConfigError(f"model {name!r} is not known: {hint} Built in are {', '.join(BUILT_IN)}")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": spec.size}
    elif name == "maxvit_t":
        options = {"input_size": (spec.size, spec.size)}

    def make() -> nn.Module:
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
        if spec.channels == 1:
            take_one_channel(model)
        return model

    return _tried(name, make, spec)


def _timm(name: str, num_classes: int, spec: ImageSpec) -> nn.Module:
    """The model of timm; its name never leads to the Hugging Face hub, and no weights are loaded."""
    from timm import models

    own = name.removeprefix(_TIMM)
    if not models.is_model(own):
        close = difflib.get_close_matches(own, models.list_models(), 3)
        hint = f"did you mean {' or '.join(_TIMM + each for each in close)}?" if close else "see timm.list_models()"
        raise ConfigError(f"model {name!r} is not known to timm: {hint}")
    size = {} if takes_any_size(name) else {"img_size": spec.size}

    def make() -> nn.Module:
        model: nn.Module = models.create_model(
            own, pretrained=False, num_classes=num_classes, in_chans=spec.channels, **size
        )
        return model

    return _tried(name, make, spec)


def _tried(name: str, make: Callable[[], nn.Module], spec: ImageSpec) -> nn.Module:
    """The model that `make` gives, after it has seen one image.

    Raises:
        ConfigError: it cannot take images of the spec.
    """
    try:
        model = make()
        with torch.no_grad():  # a model that shrinks its input to nothing says so here and not in the first step
            model.eval()(torch.zeros(1, spec.channels, spec.size, spec.size))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"model {name!r} cannot take images of {spec.size} pixels ({_one_line(error)}): set [image] "
            "size in the manifest"
        ) from error
    return model.train()


def _load(model: nn.Module, name: str, path: Path, num_classes: int) -> None:
    given, wanted = _read_state(path), model.state_dict()
    given = {key: value for key, value in given.items() if not key.startswith(("AuxLogits.", "aux1.", "aux2."))}
    for key in _head(model, num_classes):
        if key in given and given[key].shape != wanted[key].shape:
            given[key] = wanted[key]
    for key, value in wanted.items():
        if key in given and value.ndim == 4 and value.shape[1] == 1 and given[key].shape[1:2] == (3,):
            given[key] = given[key].sum(1, keepdim=True)
    _take_over(model, name, path, given)


def load_weights(model: nn.Module, name: str, path: Path) -> None:
    """Load a local .safetensors or .pt file of the model's own state dict; ConfigError where it is not its."""
    _take_over(model, name, path, _read_state(path))


def _take_over(model: nn.Module, name: str, path: Path, state: dict[str, torch.Tensor]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"weights {str(path)!r} are not those of model {name!r}: {_one_line(error)}; name the model "
            "that they were saved from"
        ) from error


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = read_file(path)
        found = decode_safetensors(content) if path.suffix == ".safetensors" else decode_torch(content)
    except FileNotFoundError as error:
        raise ConfigError(f"weights {str(path)!r}: no such file; give a local .safetensors or .pt file") from error
    except UnreadableError as error:
        remedy = error.remedy or "give a .safetensors file, or a .pt file that holds tensors alone"
        raise ConfigError(f"weights {str(path)!r} {error.cause}: {remedy}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ConfigError(f"weights {str(path)!r} hold no state dict: save `model.state_dict()`")
    return {key.removeprefix("module."): value for key, value in found.items()}


def _head(model: nn.Module, num_classes: int) -> list[str]:
    """Names of the parameters of the layer that gives the logits."""
    layers = [
        layer_name
        for layer_name, layer in model.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == num_classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == num_classes)
    ]
    return [f"{layers[-1]}.weight", f"{layers[-1]}.bias"]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."
