"""Images decode to what a browser shows, and nothing but `UndecodableImageError` ever escapes."""

import io
import random
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from helpers.support import SHARED, needs_shared, unpack
from PIL import Image, ImageCms, PngImagePlugin

from rhostream.errors import UndecodableImageError
from rhostream.loaders.decode.rgb import content_hash, decode_rgb, image_format
from rhostream.schema import REJECT_REASONS


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def pixels(data: bytes, **options: int) -> np.ndarray:
    image = decode_rgb(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(UndecodableImageError) as caught:
        decode_rgb(data, **options)
    assert caught.value.reason in REJECT_REASONS
    assert "\n" not in str(caught.value)
    return caught.value.reason


def png(header: tuple[int, int, int, int], raw: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: (width, height, bit depth, color type), filtered rows, chunks before IDAT."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts)


@pytest.mark.parametrize(
    ("kind", "extension", "options"),
    [
        ("JPEG", "jpg", {"quality": 95}),
        ("PNG", "png", {}),
        ("WEBP", "webp", {"lossless": True}),
        ("BMP", "bmp", {}),
        ("TIFF", "tif", {"compression": "tiff_lzw"}),
        ("AVIF", "avif", {"quality": 95}),
    ],
)
def test_every_format_gives_its_own_pixels_and_extension(kind: str, extension: str, options: dict[str, object]) -> None:
    original = photograph()
    data = encoded(original, kind, **options)
    assert image_format(data) == extension
    difference = np.abs(pixels(data) - np.asarray(original).astype(int))
    assert difference.mean() < (4 if kind in ("JPEG", "AVIF") else 1e-9)


def test_animations_show_their_first_frame() -> None:
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert (pixels(data) == [255, 0, 0]).all(), kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :24] = 255  # the stored top left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Where the specification says row 0 and column 0 are shown, as (top, left) of the white quarter.
    top, left = {1: (1, 1), 2: (1, 0), 3: (0, 0), 4: (0, 1), 5: (1, 1), 6: (1, 0), 7: (0, 0), 8: (0, 1)}[orientation]
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        shown = pixels(encoded(Image.fromarray(stored), kind, exif=exif, **options))
        height, width = (48, 32) if orientation >= 5 else (32, 48)
        assert shown.shape == (height, width, 3), kind
        white = shown[
            (slice(None, height // 2) if top else slice(height // 2, None)),
            (slice(None, width // 2) if left else slice(width // 2, None)),
        ]
        assert white.mean() > 250, kind
        assert abs(shown.mean() - 255 / 4) < 3, kind
    assert "exif" not in decode_rgb(encoded(Image.fromarray(stored), "JPEG", exif=exif)).info


def test_broken_exif_shows_the_image_as_stored() -> None:
    for block in (
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x05AAAA",
    ):
        assert pixels(encoded(photograph(), "JPEG", exif=block)).shape == (64, 96, 3)


def test_cmyk_and_ycck_jpeg_have_the_colors_of_their_inks() -> None:
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:32, :32] = (255, 0, 0, 0)  # cyan
    inks[:32, 32:] = (0, 200, 100, 50)
    inks[32:, :32] = (0, 0, 0, 0)  # paper
    inks[32:, 32:] = (10, 20, 30, 230)
    ink = inks.astype(float)
    expected = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, subsampling=0)
    assert np.abs(pixels(data) - expected).max() <= 4

    # YCCK: Photoshop stores inverted inks C' = 255 - C, and YCbCr of R = 255 - C'; its transform flag says 2.
    red, green, blue = (ink[..., channel] for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    stored = np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128, 255 - ink[..., 3]], -1)
    inverted_by_pillow = (255 - stored).round().clip(0, 255).astype(np.uint8)
    ycck = bytearray(encoded(Image.fromarray(inverted_by_pillow, "CMYK"), "JPEG", quality=100, subsampling=0))
    ycck[ycck.index(b"Adobe") + 11] = 2
    assert np.abs(pixels(bytes(ycck)) - expected).max() <= 6


def test_16_bit_images_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(">u2")
    gray = png((256, 1, 16, 0), b"\0" + ramp.tobytes())
    assert np.abs(pixels(gray)[0, :, 0] - ramp / 257).max() <= 1
    color = np.stack([ramp, ramp[::-1], np.full_like(ramp, 32896)], -1)
    shown = pixels(png((256, 1, 16, 2), b"\0" + color.tobytes()))[0]
    assert np.abs(shown - color / 257).max() <= 1
    tiff = encoded(Image.fromarray(ramp.astype("<u2").reshape(16, 16)), "TIFF")
    assert np.abs(pixels(tiff)[..., 1].ravel() - ramp / 257).max() <= 1
    one_gray_transparent = png((256, 1, 16, 0), b"\0" + ramp.tobytes(), (b"tRNS", ramp[7].tobytes()))
    assert (pixels(one_gray_transparent)[0, 7] == 255).all()


def test_transparency_is_composited_on_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, np.arange(0, 256, 17).reshape(4, 4)
    expected = np.stack([255 + (value - 255) * (rgba[..., 3] / 255) for value in (200, 0, 0)], -1)
    for kind in ("PNG", "WEBP", "TIFF"):
        data = encoded(Image.fromarray(rgba), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        assert np.abs(pixels(data) - expected).max() <= 1, kind
    gray_alpha = Image.fromarray(rgba).convert("LA")
    level = np.asarray(gray_alpha)[..., 0].astype(float)
    assert np.abs(pixels(encoded(gray_alpha, "PNG"))[..., 0] - (255 + (level - 255) * rgba[..., 3] / 255)).max() <= 1
    palette = png((2, 1, 8, 3), b"\0\0\1", (b"PLTE", bytes((10, 20, 30, 40, 50, 60))), (b"tRNS", b"\xff\x00"))
    assert pixels(palette).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    key_color = png((2, 1, 8, 2), b"\0" + bytes((1, 2, 3, 9, 9, 9)), (b"tRNS", bytes((0, 1, 0, 2, 0, 3))))
    assert pixels(key_color).tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_gray_bilevel_and_palette_images_become_rgb() -> None:
    gray = photograph().convert("L")
    assert (pixels(encoded(gray, "PNG")) == np.asarray(gray)[..., None]).all()
    assert np.abs(pixels(encoded(gray, "JPEG", quality=98)) - np.asarray(gray)[..., None].astype(int)).mean() < 2
    bilevel = gray.convert("1")
    assert (pixels(encoded(bilevel, "PNG")) == np.asarray(bilevel)[..., None] * 255).all()
    palette = photograph().quantize(32)
    for kind in ("PNG", "GIF", "BMP"):
        assert (pixels(encoded(palette, kind)) == np.asarray(palette.convert("RGB"))).all(), kind


def matrix_profile(swap_red_and_green: bool) -> bytes:
    """sRGB's own profile, or one whose red and green primaries are exchanged: its image shows them exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if swap_red_and_green:
        count = int.from_bytes(profile[128:132], "big")
        for entry in range(132, 132 + 12 * count, 12):
            name = bytes(profile[entry : entry + 4])
            if name in (b"rXYZ", b"gXYZ"):
                profile[entry : entry + 4] = b"gXYZ" if name == b"rXYZ" else b"rXYZ"
    return bytes(profile)


def test_icc_profiles_other_than_srgb_are_converted() -> None:
    color = Image.new("RGB", (8, 8), (250, 20, 90))
    swapped = pixels(encoded(color, "PNG", icc_profile=matrix_profile(True)))
    assert np.abs(swapped - [20, 250, 90]).max() <= 3
    assert (pixels(encoded(color, "PNG", icc_profile=matrix_profile(False))) == [250, 20, 90]).all()
    translucent = Image.new("RGBA", (8, 8), (250, 20, 90, 51))  # the profile applies before the white shows through
    expected = 255 + (np.array([20, 250, 90]) - 255) * 0.2
    assert np.abs(pixels(encoded(translucent, "PNG", icc_profile=matrix_profile(True))) - expected).max() <= 3
    palette = color.quantize(4)
    assert np.abs(pixels(encoded(palette, "PNG", icc_profile=matrix_profile(True))) - [20, 250, 90]).max() <= 3


def test_a_broken_or_foreign_profile_is_ignored_as_browsers_do() -> None:
    color = Image.new("RGB", (8, 8), (250, 20, 90))
    for profile in (b"rubbish", matrix_profile(True)[:200], b"\0" * 400):
        assert (pixels(encoded(color, "PNG", icc_profile=profile)) == [250, 20, 90]).all()
    gray = Image.new("L", (8, 8), 77)
    assert (pixels(encoded(gray, "PNG", icc_profile=matrix_profile(True))) == 77).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_jpeg_ending_early_is_truncated_unless_only_unmarked(
    progressive: bool, subsampling: int, restarts: int
) -> None:
    options = {"restart_marker_rows": restarts} if restarts else {}
    data = encoded(photograph(333, 217), "JPEG", progressive=progressive, subsampling=subsampling, **options)
    whole = pixels(data)
    assert data.endswith(b"\xff\xd9")
    for shown in (data[:-1], data[:-2], data[:-2] + b"\r\n", data + b"junk after the end"):
        assert (pixels(shown) == whole).all()
    for cut in (4, 8, 16, 100, len(data) // 2, len(data) - 700, len(data) - 200):
        assert reason(data[:-cut]) == "truncated", cut


def test_files_cut_anywhere_are_truncated_in_every_format() -> None:
    for kind, options in (
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("AVIF", {}),
    ):
        data = encoded(photograph(), kind, **options)
        for length in (40, len(data) // 4, len(data) // 2):
            assert reason(data[:length]) == "truncated", (kind, length)


def test_what_is_not_an_image_is_named() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("a.txt", "hello")
    for data in (
        archive.getvalue(),
        b"just some text",
        b"%PDF-1.7\n1 0 obj",
        random.Random(0).randbytes(5000),
        b"\0" * 100,
        b"BMX is a sport, not a bitmap file",
        b"<svg xmlns='x'></svg>",
        b"<?xml version='1.0'?><svg></svg>",
    ):
        assert reason(data) == "not_an_image", data[:20]
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    "page",
    [
        b"<html><body>404 Not Found</body></html>",
        b"<!DOCTYPE html>\n<html>",
        b"\xef\xbb\xbf\r\n  <!doctype HTML PUBLIC '-'>",
        b"<!-- a comment\n over lines -->\n<!-- another --><HTML lang=en>",
        b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC>",
        " \n<!doctype html><p>Größe".encode("utf-16"),
        b"\n" * 900 + b"<head><title>x</title>",
        b"<script>location='/'</script>",
    ],
)
def test_web_pages_are_recognized(page: bytes) -> None:
    assert reason(page) == "html"


def test_large_images_are_refused_before_they_are_decompressed() -> None:
    bomb = png((60_000, 60_000, 8, 2), b"\0")
    assert reason(bomb) == "decompression_bomb"
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"):
        data = encoded(photograph(100, 50), kind)
        assert reason(data, max_pixels=4_999) == "decompression_bomb", kind
        assert decode_rgb(data, max_pixels=5_000).size == (100, 50)


@pytest.mark.slow
def test_between_pillows_bounds_there_is_no_warning() -> None:
    large = encoded(Image.new("1", (10_000, 9_000)), "PNG")  # beyond Pillow's warning, within its error
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_rgb(large).size == (10_000, 9_000)


def test_damaged_files_raise_nothing_but_undecodable() -> None:
    generator = random.Random(0)
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 200, zip=True)
    seeds = [encoded(photograph(), kind) for kind in ("JPEG", "WEBP", "BMP", "TIFF", "AVIF")]
    seeds += [
        encoded(photograph().quantize(16), "GIF"),
        encoded(photograph(), "PNG", pnginfo=info),
        encoded(photograph(), "TIFF", compression="tiff_deflate"),
        encoded(photograph(), "JPEG", progressive=True),
        encoded(photograph().quantize(16), "PNG", transparency=3, icc_profile=matrix_profile(True)),
    ]
    for data in seeds:
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(generator.choice((1, 3, 20))):
                place = generator.randrange(min(len(damaged), generator.choice((64, 400, 1 << 20))))
                damaged[place] = generator.randrange(256)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert decode_rgb(bytes(damaged), max_pixels=1 << 20).mode == "RGB"
            except UndecodableImageError as error:
                assert error.reason in REJECT_REASONS  # noqa: PT017


def test_a_jpeg_is_never_decoded_smaller_than_asked() -> None:
    data = encoded(photograph(800, 600), "JPEG")
    assert decode_rgb(data, at_least=75).size == (100, 75)
    assert decode_rgb(data, at_least=76).size == (200, 150)
    assert decode_rgb(data, at_least=10_000).size == (800, 600)


def test_content_hash_is_half_of_sha256() -> None:
    assert content_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb924"


def test_decoding_needs_no_torch() -> None:
    modules = "rhostream.loaders.decode.rgb, rhostream.loaders.decode.image_spec"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_shared
def test_untouched_dirty_originals_decode_unless_they_are_empty() -> None:
    folder = unpack("dirty")
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".csv":
            continue
        data = path.read_bytes()
        if not data:
            assert reason(data) == "empty"
            continue
        assert decode_rgb(data).mode == "RGB", path
    assert SHARED.is_dir()


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A baseline or progressive JPEG whose header tells another size."""
    at = next(data.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_header_claims_more_is_refused_at_ingest(progressive: bool) -> None:
    whole = encoded(photograph(60, 40), "JPEG", progressive=progressive)
    for width, height in ((900, 900), (60, 80)):
        claims = claiming(whole, width, height)
        with pytest.raises(UndecodableImageError, match=f"truncated.*pixels end before its {width}x{height} do"):
            decode_rgb(claims, ingest=True)
    gray = Image.new("RGB", (60, 40), (128, 128, 128))
    assert decode_rgb(encoded(gray, "JPEG", progressive=progressive), ingest=True).size == (60, 40)
    assert decode_rgb(whole, ingest=True).size == (60, 40)


def test_a_jpeg_of_endless_scans_is_refused_at_ingest() -> None:
    whole = encoded(photograph(), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    many = whole[:-2] + 200 * whole[last:-2] + whole[-2:]
    with pytest.raises(UndecodableImageError, match=r"decompression_bomb: 2\d\d scans, at most 100"):
        decode_rgb(many, ingest=True)


def test_large_texts_and_profiles_of_a_png_change_nothing() -> None:
    image = photograph()
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * (4 << 20), zip=True)
    assert np.array_equal(pixels(encoded(image, "PNG", pnginfo=text)), np.asarray(image))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    large = encoded(image, "PNG", icc_profile=profile + bytes(4 << 20))
    assert np.array_equal(pixels(large), np.asarray(image))
    assert reason(encoded(image, "PNG", pnginfo=text)[:-400]) == "truncated"
