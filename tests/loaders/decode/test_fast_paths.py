"""The fast ways to pixels give what the ordinary way gives: the same pixels, and the same verdict on damaged files."""

import io
import random
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.decoding import reference
from helpers.support import needs_shared, unpack
from PIL import Image, ImageCms

from rhostream.errors import UndecodableImageError
from rhostream.loaders.decode.augmentation import AUGMENTATIONS, Augmentation
from rhostream.loaders.decode.fast_paths import fast_rgb
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.rgb import decode_rgb, image_format


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def views(size: int, channels: int = 3) -> ImageSpec:
    return ImageSpec.from_dict({"size": size, "channels": channels})


def fast(data: bytes, at_least: int = 1 << 20) -> np.ndarray | None:
    found = fast_rgb(data, at_least)
    return None if found is None else found.copy()


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Of every kind that the fast way must take."""
    for width, height in ((96, 64), (333, 217), (8, 3), (17, 16), (64, 64), (1, 40)):
        for subsampling in (0, 1, 2):
            yield f"{width}x{height} {subsampling}", encoded(photograph(width, height), subsampling=subsampling)
    image = photograph(201, 134)
    yield "progressive", encoded(image, progressive=True)
    yield "optimized", encoded(image, optimize=True, quality=30)
    yield "restarts", encoded(image, restart_marker_rows=1)
    yield "comment", encoded(image, comment=b"hello \xff\xda \xff\xd9")
    yield "gray", encoded(image.convert("L"))
    yield "gray, progressive", encoded(image.convert("L"), progressive=True)
    yield "srgb", encoded(image, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    yield "upright", encoded(image, exif=exif(1))
    yield "xmp", encoded(image, xmp=b"<x:xmpmeta/>")
    yield "junk behind", encoded(image) + b"junk"


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


@pytest.mark.parametrize("at_least", [1, 20, 33, 67, 1 << 20])
def test_plain_jpegs_decode_fast_to_the_ordinary_pixels(at_least: int) -> None:
    for name, data in jpegs():
        found = fast(data, at_least)
        assert found is not None, name
        assert (found == np.asarray(decode_rgb(data, at_least=at_least))).all(), name


def test_odd_jpegs_are_left_to_the_ordinary_way() -> None:
    image = photograph()
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = (profile.index(name, 132) for name in (b"rXYZ", b"gXYZ"))
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    adobe_rgb = bytearray(encoded(image, keep_rgb=True))
    whole = encoded(image)
    for name, data in {
        "inks": encoded(image.convert("CMYK")),
        "stored as RGB": bytes(adobe_rgb),
        "turned": encoded(image, exif=exif(6)),
        "other primaries": encoded(image, icc_profile=bytes(profile)),
        "profile in parts": encoded(image, icc_profile=bytes(profile) + bytes(70_000)),
        "without its end": whole[:-2],
        "half": whole[: len(whole) // 2],
        "header only": whole[:200],
        "garbage inside": whole[:-300] + b"\xff\xc0" + whole[-298:],
        "nothing": b"\xff\xd8\xff",
    }.items():
        assert fast(data) is None, name


def test_a_profile_of_gray_applies_to_gray_jpegs_alone() -> None:
    """A gray JPEG whose profile says gamma 1.0 is shown brighter; the same profile in a color JPEG is ignored."""
    curve = b"curv" + bytes(4) + struct.pack(">I", 1) + struct.pack(">H", 256) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"x\0\0\0"
    parts = [(b"cprt", text), (b"desc", text), (b"kTRC", curve), (b"wtpt", white)]
    offset, table, body = 132 + 12 * len(parts), b"", b""
    for name, part in parts:
        table += struct.pack(">4sII", name, offset + len(body), len(part))
        body += part
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"\0" * 4, 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061) + bytes(48)
    profile = head + struct.pack(">I", len(parts)) + table + body
    gray = Image.new("L", (32, 32), 60)
    data = encoded(gray, icc_profile=profile)
    assert np.asarray(decode_rgb(data)).mean() > 100, "the profile takes effect"
    assert fast(data) is None
    color = encoded(gray.convert("RGB"), icc_profile=profile)
    assert (fast(color) == np.asarray(decode_rgb(color))).all()


def ppm(pixels: np.ndarray, header: str = "P6\n{} {}\n255\n") -> bytes:
    return header.format(pixels.shape[1], pixels.shape[0]).encode() + pixels.tobytes()


def test_raw_pixels_are_what_was_stored() -> None:
    pixels = np.asarray(photograph(33, 21))
    assert image_format(ppm(pixels)) == "ppm"
    for header in ("P6\n{} {}\n255\n", "P6 {}\t{}\r255 "):
        for data in (ppm(pixels, header), ppm(pixels, header) + b"behind"):
            assert (fast(data) == pixels).all()
            assert (np.asarray(decode_rgb(data)) == pixels).all()
    commented = ppm(pixels, "P6\n# made by hand\n{} {}\n255\n")
    assert fast(commented) is None
    assert (np.asarray(decode_rgb(commented)) == pixels).all()
    deep = b"P6 33 21 65535\n" + (pixels.astype(">u2") * 257).tobytes()
    assert fast(deep) is None
    assert (np.asarray(decode_rgb(deep)) == pixels).all()
    for damaged in (ppm(pixels)[:-1], b"P6\n33 21\n255", b"P6\nx 21\n255\n", b"P6\n0 0\n255\n", b"P6\n"):
        assert fast(damaged) is None
        with pytest.raises(UndecodableImageError):
            decode_rgb(damaged)
    assert image_format(b"P6 is a Pentium Pro") == "ppm"
    with pytest.raises(UndecodableImageError):
        decode_rgb(b"P6 is a Pentium Pro")


def pgm(pixels: np.ndarray) -> bytes:
    return ppm(pixels, "P5\n{} {}\n255\n")


def test_raw_gray_pixels_are_what_was_stored() -> None:
    gray = np.asarray(photograph(33, 21).convert("L"))
    data = pgm(gray)
    assert image_format(data) == "pgm"
    found = fast_rgb(data, 21)
    assert found is not None
    assert found.shape == (21, 33, 1)
    assert (found[..., 0] == gray).all()
    assert (np.asarray(decode_rgb(data)) == gray[..., None]).all()
    into = np.zeros((21, 33, 1), np.uint8)
    assert fast_rgb(data, 21, into) is into
    assert (into[..., 0] == gray).all()
    deep = b"P5 33 21 65535\n" + (gray.astype(">u2") * 257).tobytes()
    assert fast_rgb(deep, 21) is None
    assert (np.asarray(decode_rgb(deep)) == gray[..., None]).all()
    for damaged in (data[:-1], b"P5\n33 21\n255", b"P5\n0 0\n255\n"):
        assert fast_rgb(damaged, 21) is None
        with pytest.raises(UndecodableImageError):
            decode_rgb(damaged)


def test_pixels_go_straight_into_the_callers_array_where_they_fit() -> None:
    original = photograph(64, 64)
    for data in (encoded(original), ppm(np.asarray(original))):
        into = np.zeros((64, 64, 3), np.uint8)
        assert fast_rgb(data, 64, into) is into
        assert (into == np.asarray(decode_rgb(data))).all()
        wider = np.zeros((64, 65, 3), np.uint8)
        found = fast_rgb(data, 64, wider)
        assert found is not None
        assert found.shape == (64, 64, 3)
        assert not wider.any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_specs_fast_pixels_equal_the_ordinary_for_every_augmentation(
    augmentation: Augmentation, channels: int
) -> None:
    files = [data for _, data in jpegs()]
    files += [ppm(np.asarray(photograph(*size))) for size in ((64, 64), (90, 64), (64, 97), (40, 31))]
    files += [pgm(np.asarray(photograph(*size).convert("L"))) for size in ((64, 64), (28, 28), (67, 97))]
    files += [encoded(photograph(64, 64).convert(mode), "PNG") for mode in ("L", "RGB", "P")]
    for number, data in enumerate(files):
        spec = views((28, 32, 64, 67)[number % 4], channels)
        draw = f"0/1/{number}"
        found = spec.pixels(data, augmentation, draw)
        assert found.shape == (channels, spec.size, spec.size)
        assert (found == reference(data, spec, augmentation, draw)).all(), number


def outcome(work: object) -> np.ndarray | str:
    try:
        return work()  # type: ignore[operator, no-any-return]
    except UndecodableImageError as error:
        return error.reason


def test_damaged_files_get_the_same_verdict_and_pixels_either_way() -> None:
    generator = random.Random(1)
    spec = views(32)
    seeds = [encoded(photograph()), encoded(photograph(), progressive=True), encoded(photograph().convert("L"))]
    seeds += [encoded(photograph(), subsampling=0, restart_marker_rows=1, exif=exif(1))]
    seeds += [ppm(np.asarray(photograph(64, 48))), pgm(np.asarray(photograph(64, 48).convert("L")))]
    refused = 0
    for data in seeds:
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(generator.choice((1, 3, 20))):
                damaged[generator.randrange(min(len(damaged), generator.choice((64, 700, 1 << 20))))] = (
                    generator.randrange(256)
                )
            if generator.random() < 0.3:
                del damaged[generator.randrange(len(damaged)) :]
            if image_format(bytes(damaged)) is None or _is_huge(bytes(damaged)):
                continue
            expected = outcome(lambda damaged=bytes(damaged): reference(damaged, spec))
            found = outcome(lambda damaged=bytes(damaged): spec.pixels(damaged))
            refused += isinstance(expected, str)
            assert np.array_equal(found, expected), bytes(damaged[:700])
    assert refused > 50


def _is_huge(data: bytes) -> bool:
    try:
        decode_rgb(data, max_pixels=1 << 20)
    except UndecodableImageError as error:
        return error.reason == "decompression_bomb"
    return False


@needs_shared
def test_real_photographs_decode_to_the_same_pixels_either_way() -> None:
    plain = 0
    files = sorted(unpack("clothing").rglob("*.jpg"))[::60]
    files += [path for path in sorted(unpack("dirty").rglob("*")) if path.is_file() and path.suffix != ".csv"]
    for number, path in enumerate(files):
        data = path.read_bytes()
        spec = views((64, 176, 224)[number % 3])
        plain += fast(data) is not None
        expected = outcome(lambda data=data, spec=spec: reference(data, spec))
        assert np.array_equal(outcome(lambda data=data, spec=spec: spec.pixels(data)), expected), path
    assert plain > len(files) // 2
