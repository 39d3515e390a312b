"""Small PNGs decoded the fast way have the pixels that Pillow gives, and damaged ones are left to Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers.decoding import reference
from helpers.support import needs_shared, picture, unpack
from PIL import Image, PngImagePlugin

from rhostream.loaders.decode.augmentation import AUGMENTATIONS, Augmentation
from rhostream.loaders.decode.fast_paths import small_png
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.rgb import decode_rgb


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def with_chunk(data: bytes, kind: bytes, content: bytes, at: int = 33) -> bytes:
    """One more chunk, by default right after the header."""
    checksum = zlib.crc32(kind + content)
    return data[:at] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum) + data[at:]


PLAIN = {
    "rgb": png(picture(1, (31, 17))),
    "gray": png(picture(2, (28, 28), "L")),
    "one pixel": png(picture(3, (1, 1))),
    "uncompressed": png(picture(4, (20, 40)), compress_level=0),
    "dpi": png(picture(5), dpi=(72, 72)),
    "gamma": with_chunk(png(picture(6)), b"gAMA", struct.pack(">I", 100_000)),
    "bytes after the end": png(picture(7)) + b"more",
}
ODD = {
    "palette": png(picture(1).quantize(16)),
    "alpha": png(picture(1).convert("RGBA")),
    "transparent gray": png(picture(1, mode="L"), transparency=7),
    "16 bit": png(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257)),
    "black and white": png(picture(1, mode="1")),
    "text": png(picture(1), pnginfo=(lambda info: (info.add_text("exif", "no"), info)[1])(PngImagePlugin.PngInfo())),
    "turned": png(picture(1), exif=(lambda exif: (exif.__setitem__(0x0112, 6), exif)[1])(Image.Exif())),
    "animated": png(picture(1), save_all=True, append_images=[picture(2)]),
    "large": png(picture(1, (129, 128))),
    "no image data": PLAIN["rgb"][:33] + PLAIN["rgb"][-12:],
    "jpeg": b"\xff\xd8\xff\xe0",
    "empty": b"",
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_files_have_pillows_pixels(kind: str) -> None:
    fast = small_png(PLAIN[kind])
    assert fast is not None
    expected = np.asarray(decode_rgb(PLAIN[kind]))
    assert np.array_equal(np.broadcast_to(fast, expected.shape), expected)


@pytest.mark.parametrize("kind", ODD)
def test_all_others_are_left_to_pillow(kind: str) -> None:
    assert small_png(ODD[kind]) is None


@pytest.mark.parametrize("kind", ["rgb", "gray"])
def test_a_damaged_file_is_left_to_pillow(kind: str) -> None:
    data = PLAIN[kind]
    for length in range(len(data)):
        assert small_png(data[:length]) is None
    for at in range(len(data)):
        assert small_png(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]) is None


def test_image_data_that_does_not_unpack_is_left_to_pillow() -> None:
    broken = with_chunk(PLAIN["rgb"][:33] + PLAIN["rgb"][-12:], b"IDAT", b"\x78\x9cgarbage")
    assert small_png(broken) is None


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 16, 40])
def test_views_of_them_are_those_of_the_ordinary_way(size: int, channels: int, augmentation: Augmentation) -> None:
    spec = ImageSpec.from_dict({"size": size, "channels": channels})
    for mode in ("L", "RGB"):
        for number, shape in enumerate(((28, 28), (40, 28), (28, 41))):
            data = png(picture(number, shape, mode))
            expected = reference(data, spec, augmentation, "7/0/k")
            assert np.array_equal(spec.pixels(data, augmentation, "7/0/k"), expected)


@needs_shared
def test_the_digits_of_mnist_are_taken() -> None:
    raw = (unpack("mnist") / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    for start in range(16, 16 + 784 * 100, 784):
        digit = np.frombuffer(raw, np.uint8, 784, start).reshape(28, 28)
        fast = small_png(png(Image.fromarray(digit)))
        assert fast is not None
        assert np.array_equal(fast[..., 0], digit)
