"""Small classifiers of images that are built in: none needs a download."""

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec

MIN_SIZE: Final = 16  # pixels a side that the built-in convolutional models need


def _strided_cnn(num_classes: int, spec: ImageSpec) -> nn.Module:
    """Three convolutions with BatchNorm, the first over patches: a third of what `small_cnn` computes.

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
        take_one_channel(model)
    return model


def take_one_channel(model: nn.Module) -> None:
    """Let the first convolution see luma as it saw a gray RGB image."""
    for parent in model.modules():
        for child in parent.children():
            if isinstance(child, nn.Conv2d) and child.in_channels == 3:
                weight = child.weight.data.sum(1, keepdim=True)
                child.weight, child.in_channels = nn.Parameter(weight), 1
                return
    raise ValueError("it has no convolution of three channels to adapt to one")


def _require_size(name: str, spec: ImageSpec) -> None:
    if spec.size < MIN_SIZE:
        raise ConfigError(
            f"model {name!r} needs images of at least {MIN_SIZE} pixels, the spec has {spec.size}: set "
            "[image] size in the manifest, or use the model mlp"
        )


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

#: Of these those whose weights fit one image size alone.
OF_ONE_SIZE: Final = ("small_cnn", "lenet5", "mlp", "small_mlp", "mlp_dropout", "small_vit")
