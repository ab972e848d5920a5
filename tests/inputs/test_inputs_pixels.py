from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robustdistill.errors import BadInput
from robustdistill.inputs import decode_image, from_unit, pixels, resized, to_unit

GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, for headers that Pillow will not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-0.5, 3.0)])
def test_every_byte_survives_the_way_to_model_input_and_back(low: float, high: float) -> None:
    x = GRADIENT[None]
    unit = to_unit(x, low, high)
    assert unit.dtype == np.float32 and unit.shape == x.shape
    assert unit.min() == np.float32(low) and unit.max() == np.float32(high)
    np.testing.assert_array_equal(from_unit(unit, low, high), x)


def test_from_unit_rounds_to_the_nearest_and_clips() -> None:
    np.testing.assert_array_equal(from_unit(np.array([-0.2, 0.4 / 255, 0.6 / 255, 7.0])), [0, 0, 1, 255])


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_lossless_formats_give_the_pixels(format: str) -> None:
    colour = np.stack([GRADIENT, GRADIENT.T, 255 - GRADIENT], axis=-1)
    decoded = decode_image(encode(Image.fromarray(colour), format, lossless=True))
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, np.moveaxis(colour, -1, 0))


def test_gray_has_one_channel_also_from_jpeg_and_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "gray.jpg"
    Image.fromarray(GRADIENT).save(path, quality=95)
    decoded = decode_image(path)
    assert decoded.shape == (1, 16, 16)
    assert np.abs(decoded[0].astype(int) - GRADIENT).mean() < 4


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_modes_that_hold_gray_or_rgb_are_read(mode: str, channels: int) -> None:
    image = (
        Image.fromarray(GRADIENT).convert("RGB").convert(mode) if mode != "LA" else Image.new("LA", (4, 4), (9, 255))
    )
    assert decode_image(encode(image)).shape[0] == channels


def test_an_image_is_turned_as_its_exif_data_say() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    content = encode(Image.fromarray(GRADIENT[:, :8]), exif=exif.tobytes())
    np.testing.assert_array_equal(decode_image(content)[0], np.rot90(GRADIENT[:, :8], -1))


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a PNG, JPEG or WebP"),
    "text": (lambda: b"hello", "not a PNG, JPEG or WebP"),
    "gif": (lambda: encode(Image.fromarray(GRADIENT), "GIF"), "not a PNG, JPEG or WebP"),
    "truncated png": (lambda: encode(Image.fromarray(GRADIENT))[:-40], "truncated"),
    "truncated jpeg": (lambda: encode(Image.fromarray(GRADIENT), "JPEG")[:-40], "truncated"),
    "bomb": (lambda: png(60_000, 60_000, 8, 0, b""), "too large"),
    "large": (lambda: png(5000, 5000, 8, 0, b""), "of 5000 × 5000 pixels is too large"),
    "16-bit gray": (lambda: png(1, 1, 16, 0, b"\0\1\2"), "8 bits"),
    "16-bit rgb": (lambda: png(1, 1, 16, 2, b"\0\1\2\3\4\5\6"), "8 bits"),
    "16-bit from Pillow": (lambda: encode(Image.new("I;16", (8, 8))), "8 bits"),
    "transparent": (lambda: encode(Image.new("RGBA", (2, 2), (1, 2, 3, 4))), "transparent"),
    "cmyk": (lambda: encode(Image.new("CMYK", (8, 8)), "JPEG"), "CMYK"),
    "animated": (
        lambda: encode(
            Image.new("RGB", (8, 8)), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), (255, 0, 0))]
        ),
        "animated",
    ),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_image_is_refused_with_cause_place_and_fix(name: str) -> None:
    content, cause = BAD[name]
    with pytest.raises(BadInput, match=cause) as caught:
        decode_image(content(), where="upload 7")
    assert caught.value.where == "upload 7" and caught.value.fix


def test_the_limit_of_pixels_can_be_set_and_is_checked_before_decoding() -> None:
    content = encode(Image.fromarray(GRADIENT))
    decode_image(content, max_pixels=256)
    with pytest.raises(BadInput, match="limit is 255"):
        decode_image(content[:60], max_pixels=255)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_damaged_bytes_give_an_image_or_a_sentence_never_a_traceback(format: str, data: st.DataObject) -> None:
    content = bytearray(encode(Image.fromarray(GRADIENT), format))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        decoded = decode_image(kept, max_pixels=10_000)
    except BadInput:
        return
    assert decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[0] in (1, 3)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadInput, match="not a regular file"):
        decode_image(tmp_path / "pipe.png")


def test_an_unreadable_or_huge_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GRADIENT).save(path)
    monkeypatch.setattr(pixels, "MAX_BYTES", 10)
    with pytest.raises(BadInput, match="larger than"):
        decode_image(path)
    monkeypatch.undo()

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BadInput, match="Permission denied") as caught:
        decode_image(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_resized_keeps_channels_apart_and_a_flat_image_flat(channels: int) -> None:
    flat = np.broadcast_to(np.arange(10, 10 + channels, dtype=np.uint8)[:, None, None], (channels, 9, 5))
    result = resized(np.ascontiguousarray(flat), 4, 6)
    np.testing.assert_array_equal(result, np.broadcast_to(flat[:, :1, :1], (channels, 4, 6)))
