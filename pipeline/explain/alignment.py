"""How alike two small images are once one is laid onto the other: the difference between a copy and a look-alike.

A crop of a few percent moves every edge, so pixels are compared after an alignment: the shift and scale of each axis
that bring one image closest to the other, by Gauss-Newton steps (Lucas & Kanade 1981; Baker & Matthews, IJCV 56, 2004),
with contrast and brightness left free. What counts then is every small window: garments before a white wall agree in
their outline, copies in every fold.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_STEPS: Final = 6
_DAMPING: Final = 1e-3  # of a step, as a share of the mean curvature
_FARTHEST_STEP: Final = 0.1  # of each parameter; the image reaches from -1 to 1
_FARTHEST_SHIFT: Final = 0.12
_SCALES: Final = (0.85, 1 / 0.85)
_WINDOW: Final = 5  # pixels of each side, of 32
_NOISE: Final = 4.0  # variance, gray levels squared, that encoding may add
_OTHER_COLOR: Final = 20.0  # gray levels, of what is not brightness: another color of the same garment
_OTHER_BRIGHTNESS: Final = 35.0  # gray levels
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)

Images = npt.NDArray[np.floating[Any]]


def likeness(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Of pairs of images: how far they agree in each small window that is not of one color, after alignment.

    The mean of the contrast and structure that SSIM compares (Wang et al., IEEE TIP 13, 2004, eqs. 9 and 10). 0 where
    some part has another color or brightness, and where no window shows anything.

    Args:
        first, second: uint8 (n, 3, side, side).

    Returns:
        float32 (n,), at most 1.
    """
    colors, others = first.astype(np.float32), second.astype(np.float32)
    luma, other = brightness(colors), _blurred(brightness(others))
    across, down, covered = _alignment(_blurred(luma), other)
    moved = down[:, None] @ colors @ across[:, None].transpose(0, 1, 3, 2)
    hues = _blurred(moved - brightness(moved)[:, None]) - _blurred(others - brightness(others)[:, None])
    own = _blurred(brightness(moved))
    mean, mean_of_other = _windows(own), _windows(other)
    variance = np.maximum(_windows(own**2) - mean**2, 0)
    variance_of_other = np.maximum(_windows(other**2) - mean_of_other**2, 0)
    covariance = _windows(own * other) - mean * mean_of_other
    alike = (2 * covariance + _NOISE) / (variance + variance_of_other + _NOISE)
    shows = (np.maximum(variance, variance_of_other) > _NOISE) * covered
    agreement = (alike * shows).sum(axis=(1, 2)) / np.maximum(shows.sum(axis=(1, 2)), 1)
    other_color = np.linalg.norm(_windows(hues * covered[:, None]), axis=1)
    other_brightness = np.abs(mean - mean_of_other) * covered
    same = (_nearly_most(other_color) <= _OTHER_COLOR) & (_nearly_most(other_brightness) <= _OTHER_BRIGHTNESS)
    return np.where(same, agreement, 0).astype(np.float32)


def brightness(colors: Images) -> Images:
    """float32 (n, side, side) of (n, 3, side, side)."""
    return np.tensordot(colors, _LUMA, (1, 0)).astype(np.float32)


def stretched(side: int, scales: Images, shifts: Images) -> tuple[Images, npt.NDArray[np.bool_]]:
    """Linear interpolation along one axis, which reaches from -1 to 1, and which of its pixels lie on the image.

    Args:
        scales, shifts: float32 (n,); 1 and 0 leave the axis as it is.

    Returns:
        float32 (n, side, side), to multiply an axis by, and bool (n, side).
    """
    last = side - 1
    at = (np.linspace(-1, 1, side, dtype=np.float32) * scales[:, None] + shifts[:, None] + 1) * (last / 2)
    inside = (at >= -0.01) & (at <= last + 0.01)
    near = 1 - np.abs(np.clip(at, 0, last)[:, :, None] - np.arange(side, dtype=np.float32))
    return np.maximum(near, 0), inside


def _alignment(first: Images, second: Images) -> tuple[Images, Images, Images]:
    """What to multiply the columns and rows of `first` by, and (n, side, side) 1 where it covers `second`, else 0."""
    count, side, _ = first.shape
    columns = np.linspace(-1, 1, side, dtype=np.float32)
    rows = columns[:, None]
    slope_down, slope_across = (slope * (side - 1) / 2 for slope in np.gradient(first, axis=(1, 2)))
    scale_across, scale_down = np.ones((2, count), np.float32)
    shift_across, shift_down = np.zeros((2, count), np.float32)
    for step in range(_STEPS + 1):
        across, inside_across = stretched(side, scale_across, shift_across)
        down, inside_down = stretched(side, scale_down, shift_down)
        covered = (inside_down[:, :, None] & inside_across[:, None]).astype(np.float32)
        if step == _STEPS:
            break
        turned = across.transpose(0, 2, 1)
        sideways, downward = down @ slope_across @ turned, down @ slope_down @ turned
        columns_of = [sideways * columns, sideways, downward * rows, downward, -second, -np.ones_like(second)]
        slopes = np.stack([column * covered for column in columns_of], axis=-1).reshape(count, -1, 6)
        target = -((down @ first @ turned) * covered).reshape(count, -1, 1)
        curvature = slopes.transpose(0, 2, 1) @ slopes
        mean = np.trace(curvature, axis1=1, axis2=2)[:, None, None] / 6
        curvature = curvature + (_DAMPING * mean + 1e-6) * np.eye(6, dtype=np.float32)
        found = np.linalg.solve(curvature, slopes.transpose(0, 2, 1) @ target)[:, :4, 0]
        move = np.clip(found, -_FARTHEST_STEP, _FARTHEST_STEP)
        scale_across = np.clip(scale_across + move[:, 0], *_SCALES)
        shift_across = np.clip(shift_across + move[:, 1], -_FARTHEST_SHIFT, _FARTHEST_SHIFT)
        scale_down = np.clip(scale_down + move[:, 2], *_SCALES)
        shift_down = np.clip(shift_down + move[:, 3], -_FARTHEST_SHIFT, _FARTHEST_SHIFT)
    return across, down, covered


def _blurred(images: Images) -> Images:
    """Along the last two axes, by (1, 2, 1) / 4."""
    wide = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 1)] * 2, mode="edge")
    tall = (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 4
    blurred: Images = (tall[..., :-2, :] + 2 * tall[..., 1:-1, :] + tall[..., 2:, :]) / 4
    return blurred


def _windows(images: Images) -> Images:
    """The mean of the window around each pixel."""
    reach = _WINDOW // 2
    padded = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(reach, reach)] * 2, mode="edge")
    rows, columns = images.shape[-2:]
    sums = np.sum([padded[..., at : at + columns] for at in range(_WINDOW)], axis=0)
    means: Images = np.sum([sums[..., at : at + rows, :] for at in range(_WINDOW)], axis=0) / _WINDOW**2
    return means


def _nearly_most(images: Images) -> Images:
    """Of each image a value that hardly any pixel exceeds."""
    highest: Images = np.quantile(images.reshape(len(images), -1), 0.98, axis=1)
    return highest
