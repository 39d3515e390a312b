"""The thumbnails of thumbnails: what they show, whatever the originals are."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.support import encoded as file_of, needs_shared, unpack
from PIL import Image, ImageDraw

from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.rgb import decode_rgb, image_format
from rhostream.pipeline.thumbnails.maker import encoded, shrunk


def drawing(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Shapes and gradients, unlike in every corner, (width, height) pixels."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    image = Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 8, width // 2, height // 3), fill=(250, 240, 20))
    draw.line((0, height, width, height // 3), fill=(10, 10, 90), width=max(1, min(size) // 20))
    return image.convert(mode)


def with_exif(size: tuple[int, int], orientation: int) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    drawing(size).save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()


def see_through(size: tuple[int, int]) -> bytes:
    image = drawing(size, "RGBA")
    image.putalpha(Image.linear_gradient("L").resize(size))
    return file_of(image, "PNG")


ORIGINALS: dict[str, Callable[[], bytes]] = {
    "a photograph, decoded at half scale": lambda: file_of(drawing((353, 211)), "JPEG"),
    "a photograph, decoded at an eighth": lambda: file_of(drawing((1201, 1600)), "JPEG"),
    "square": lambda: file_of(drawing((130, 130)), "JPEG"),
    "very wide": lambda: file_of(drawing((700, 65)), "JPEG"),
    "progressive": lambda: progressive(drawing((300, 220))),
    "a gray JPEG": lambda: file_of(drawing((200, 267), "L"), "JPEG"),
    "a CMYK JPEG": lambda: file_of(drawing((200, 267), "CMYK"), "JPEG"),
    "turned by EXIF": lambda: with_exif((320, 200), 6),
    "mirrored by EXIF": lambda: with_exif((200, 320), 5),
    "transparent": lambda: see_through((150, 101)),
    "a palette": lambda: file_of(drawing((151, 100), "P"), "PNG"),
    "WebP": lambda: file_of(drawing((199, 300)), "WEBP"),
    "of the thumbnail's size": lambda: file_of(drawing((64, 90)), "PNG"),
    "smaller": lambda: file_of(drawing((50, 31)), "PNG"),
    "a single pixel": lambda: file_of(drawing((1, 1)), "PNG"),
}


def progressive(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", progressive=True)
    return buffer.getvalue()


def seen(thumbnail: bytes, spec: ImageSpec) -> npt.NDArray[np.int16]:
    """What a spec makes of a thumbnail, int16 (C, size, size)."""
    return spec.pixels(thumbnail).astype(np.int16)


@pytest.mark.parametrize("name", ORIGINALS)
@pytest.mark.parametrize("size", [64, 52])
def test_scoring_a_raw_thumbnail_is_scoring_the_original(name: str, size: int) -> None:
    original = ORIGINALS[name]()
    thumbnail = encoded(shrunk(original, size), "raw")
    for spec in (ImageSpec(size=size), ImageSpec(size=size, channels=1, mean=(0.5,), std=(0.5,))):
        difference = np.abs(seen(thumbnail, spec) - spec.pixels(original))
        assert difference.max() <= 2


def test_hardly_a_pixel_differs_without_dct_scaling() -> None:
    original = file_of(drawing((1001, 700)), "PNG")
    difference = np.abs(
        seen(encoded(shrunk(original, 64), "raw"), ImageSpec(size=64)) - ImageSpec(size=64).pixels(original)
    )
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) <= 8


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_jpeg_thumbnail_is_close_to_the_raw_one(name: str) -> None:
    image = shrunk(ORIGINALS[name](), 64)
    jpeg = decode_rgb(encoded(image, "jpeg"))
    assert jpeg.size == image.size
    difference = np.asarray(jpeg, np.float64) - np.asarray(image)
    assert np.sqrt((difference**2).mean()) < 6


@pytest.mark.parametrize(
    ("original", "thumbnail"),
    [
        ((400, 300), (85, 64)),
        ((300, 400), (64, 85)),
        ((64, 640), (64, 640)),
        ((63, 640), (63, 640)),
        ((20, 10), (20, 10)),
    ],
)
def test_the_shorter_side_shrinks_and_the_aspect_ratio_stays(
    original: tuple[int, int], thumbnail: tuple[int, int]
) -> None:
    assert shrunk(file_of(drawing(original), "PNG"), 64).size == thumbnail


def test_a_thumbnail_is_upright_in_srgb_and_on_white() -> None:
    turned = shrunk(with_exif((320, 200), 6), 64)
    assert turned.size == (64, 102)
    expected = drawing((320, 200)).transpose(Image.Transpose.ROTATE_270).resize((64, 102), Image.Resampling.BOX)
    assert np.abs(np.asarray(turned, np.int16) - np.asarray(expected)).mean() < 4
    clear = Image.new("RGBA", (200, 100), (200, 0, 0, 0))
    assert np.asarray(shrunk(file_of(clear, "PNG"), 64)).min() == 255
    for thumbnail_format in ("jpeg", "raw"):
        data = encoded(turned, thumbnail_format)  # type: ignore[arg-type]
        assert b"Exif" not in data
        assert b"ICC_PROFILE" not in data


def test_a_raw_thumbnail_is_a_ppm_that_other_programs_open() -> None:
    image = drawing((50, 31))
    data = encoded(image, "raw")
    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()
    assert decode_rgb(data).tobytes() == image.tobytes()


def test_a_raw_thumbnail_of_a_gray_image_is_gray() -> None:
    image = drawing((50, 31)).convert("L").convert("RGB")
    data = encoded(image, "raw")
    assert image_format(data) == "pgm"
    assert len(data) < 50 * 31 + 20
    assert Image.open(io.BytesIO(data)).convert("RGB").tobytes() == image.tobytes()
    assert decode_rgb(data).tobytes() == image.tobytes()


@needs_shared
def test_scoring_raw_thumbnails_of_real_photographs_is_scoring_the_photographs() -> None:
    files = sorted(Path(unpack("clothing"), "images").glob("*.jpg"))[:200]
    assert len(files) == 200
    for size in (64, 128):
        spec = ImageSpec(size=size)
        worst = max(
            int(np.abs(seen(encoded(shrunk(data, size), "raw"), spec) - spec.pixels(data)).max())
            for data in (file.read_bytes() for file in files[:: size // 32])
        )
        assert worst <= 2
