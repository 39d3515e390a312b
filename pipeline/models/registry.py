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
from rhostream.pipeline.models.open_clip_models import OPEN_CLIP
from rhostream.pipeline.models.text_models import TRANSFORMERS, build_text_model

MIN_SIZE: Final = 16  # pixels a side that the built-in convolutional models need


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


def _strided_cnn(num_classes: int, spec: ImageSpec) -> nn.Module:
    """Three convolutions with BatchNorm, the first over patches: a third of what `small_cnn` computes, and a better IL.

    The last feature map is averaged to 2x2, so that any size of image is taken and places still count.
    """
    _require_size("strided_cnn", spec)
    stride = 2 * min(max(spec.size // 32, 1), 4)
    return nn.Sequential(
        *_block(spec.channels, 24, size=2 * stride, stride=stride, padding=stride // 2),
        nn.MaxPool2d(2),
        *_block(24, 48),
        nn.MaxPool2d(2),
        *_block(48, 96),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 96, num_classes),
    )


def _small_cnn(num_classes: int, spec: ImageSpec) -> nn.Module:
    """LeNet-like: the IL model of arXiv 2206.07137, Appendix B, with a strided stem for specs beyond 32 pixels."""
    _require_size("small_cnn", spec)
    stride = min(max(spec.size // 32, 1), 4)
    side = ((spec.size - 1) // stride + 1) // 4
    return nn.Sequential(
        nn.Conv2d(spec.channels, 16, 5, stride=stride, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * side * side, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def _lenet5(num_classes: int, spec: ImageSpec) -> nn.Module:
    """LeNet-5 (LeCun et al., 1998) with ReLUs and max-pooling: a quarter of what `small_cnn` computes."""
    _require_size("lenet5", spec)
    stride = min(max(spec.size // 32, 1), 4)
    side = (((spec.size - 5) // stride + 1) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(spec.channels, 6, 5, stride=stride),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side * side, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )


def _bn_cnn(num_classes: int, spec: ImageSpec) -> nn.Module:
    """Three 3x3 convolutions with BatchNorm and a mean over the last feature map."""
    _require_size("bn_cnn", spec)
    stride = min(max(spec.size // 32, 1), 4)

    return nn.Sequential(
        *_block(spec.channels, 32, stride=stride),
        nn.MaxPool2d(2),
        *_block(32, 64),
        nn.MaxPool2d(2),
        *_block(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def _block(inputs: int, outputs: int, *, size: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def _mlp(num_classes: int, spec: ImageSpec) -> nn.Module:
    """Two hidden layers of 512: the target of the paper's MNIST experiments."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(spec.channels * spec.size**2, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, num_classes),
    )


def _small_mlp(num_classes: int, spec: ImageSpec) -> nn.Module:
    """One hidden layer of 128: the IL model of the above, with a seventh of its parameters on 28x28 pixels."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(spec.channels * spec.size**2, 128), nn.ReLU(), nn.Linear(128, num_classes)
    )


def _mlp_dropout(num_classes: int, spec: ImageSpec) -> nn.Module:
    """`mlp` with dropout, for the functions that draw (MC dropout)."""
    flatten, first, relu, second, _, last = _mlp(num_classes, spec).children()
    return nn.Sequential(flatten, first, relu, nn.Dropout(0.5), second, nn.ReLU(), nn.Dropout(0.5), last)


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added: the basic block of arXiv 1512.03385.

    Args:
        norm: makes a normalization of so many channels.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            norm(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            norm(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if (inputs, stride) == (outputs, 1)
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(images) + self.shortcut(images))


def _resnet8(num_classes: int, spec: ImageSpec) -> nn.Module:
    """The shallowest ResNet for small images (arXiv 1512.03385, section 4.2, n = 1), of twice its width."""
    _require_size("resnet8", spec)
    return nn.Sequential(
        nn.Conv2d(spec.channels, 32, 3, min(max(spec.size // 32, 1), 4), padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Residual(32, 32, 1),
        Residual(32, 64, 2),
        Residual(64, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def _resnet18_cifar(num_classes: int, spec: ImageSpec) -> nn.Module:
    """ResNet-18 for small images: a 3x3 stem of stride 1 and no first pooling."""
    _require_size("resnet18_cifar", spec)
    import torchvision  # here and below: it costs seconds to import, which the models above need not pay

    model: nn.Module = torchvision.models.resnet18(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(spec.channels, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def _small_vit(num_classes: int, spec: ImageSpec) -> nn.Module:
    """A vision transformer (arXiv 2010.11929) of at most 8 x 8 patches: 6 layers of 128 numbers, 4 heads."""
    patch = next((side for side in range(max(spec.size // 8, 1), spec.size // 4 + 1) if spec.size % side == 0), 0)
    if not patch:
        raise ConfigError(
            f"model 'small_vit' cannot cut images of {spec.size} pixels into patches of equal size: set [image] size "
            "in the manifest to a multiple of 8"
        )
    from torchvision.models import VisionTransformer

    model: nn.Module = VisionTransformer(
        image_size=spec.size,
        patch_size=patch,
        num_layers=6,
        num_heads=4,
        hidden_dim=128,
        mlp_dim=512,
        num_classes=num_classes,
    )
    if spec.channels == 1:
        _take_one_channel(model)
    return model


BUILT_IN: Final[dict[str, Callable[[int, ImageSpec], nn.Module]]] = {
    "strided_cnn": _strided_cnn,
    "small_cnn": _small_cnn,
    "lenet5": _lenet5,
    "bn_cnn": _bn_cnn,
    "mlp": _mlp,
    "small_mlp": _small_mlp,
    "mlp_dropout": _mlp_dropout,
    "resnet8": _resnet8,
    "resnet18_cifar": _resnet18_cifar,
    "small_vit": _small_vit,
}

_TIMM: Final = "timm/"
_OF_ONE_SIZE: Final = ("small_cnn", "lenet5", "mlp", "small_mlp", "mlp_dropout", "small_vit")


def takes_any_size(name: str) -> bool:
    """Can a model built for one image size be run on another? A flattening or a position per patch forbids it."""
    if name.startswith(_TIMM):
        from timm.models import get_pretrained_cfg

        known = get_pretrained_cfg(name.removeprefix(_TIMM), allow_unregistered=True)
        return not (known and known.fixed_input_size)
    return name not in _OF_ONE_SIZE and not name.startswith(("vit_", "maxvit", OPEN_CLIP))


def _require_size(name: str, spec: ImageSpec) -> None:
    if spec.size < MIN_SIZE:
        raise ConfigError(
            f"model {name!r} needs images of at least {MIN_SIZE} pixels, the spec has {spec.size}: set "
            "[image] size in the manifest, or use the model mlp"
        )


def _torchvision(name: str, num_classes: int, spec: ImageSpec) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, [*BUILT_IN, *known], 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see torchvision.models"
        raise ConfigError(f"model {name!r} is not known: {hint}; built in are {', '.join(BUILT_IN)}")
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
            _take_one_channel(model)
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


def _take_one_channel(model: nn.Module) -> None:
    """Let the first convolution see luma as it saw a gray RGB image."""
    for parent in model.modules():
        for child in parent.children():
            if isinstance(child, nn.Conv2d) and child.in_channels == 3:
                weight = child.weight.data.sum(1, keepdim=True)
                child.weight, child.in_channels = nn.Parameter(weight), 1
                return
    raise ValueError("it has no convolution of three channels to adapt to one")


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
