"""Images as uint8 arrays [C, H, W], and back and forth to model input. Nothing here trusts the bytes it is given.

The header is read first, so that an image that is too large, has 16 bits a channel or is not an image at all is
refused before a pixel is decoded.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from robustdistill.errors import BadInput
from robustdistill.inputs.text import shown

MAX_PIXELS = 4096 * 4096  # of one image; a decompression bomb claims far more
MAX_BYTES = 256 * 2**20  # of one encoded image
FORMATS = ("PNG", "JPEG", "WEBP")
GRAY, COLOUR = 1, 3

_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (_PNG, b"\xff\xd8\xff", b"RIFF")
_PNG_BIT_DEPTH = 24  # offset in the IHDR chunk, which always comes first
_DEEP_MODES = ("I", "F")  # and I;16, I;16B, …: more than 8 bits a channel


def to_unit(x: NDArray[np.uint8], low: float = 0.0, high: float = 1.0) -> NDArray[np.float32]:
    """0..255 → [low, high] in float32, any shape: low + x / 255 · (high − low)."""
    unit: NDArray[np.float32] = np.divide(x, 255, dtype=np.float32)
    if (low, high) == (0.0, 1.0):
        return unit
    scaled: NDArray[np.float32] = np.clip(np.float32(low) + unit * np.float32(high - low), low, high)
    return scaled


def from_unit(x: NDArray[Any], low: float = 0.0, high: float = 1.0) -> NDArray[np.uint8]:
    """[low, high] → the nearest of 0..255, any shape; undoes `to_unit` exactly, clips what lies outside."""
    unit = (np.asarray(x, dtype=np.float64) - low) / (high - low)
    return np.rint(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)


def decode_image(source: bytes | Path, *, where: str = "", max_pixels: int | None = None) -> NDArray[np.uint8]:
    """One PNG, JPEG or WebP image as uint8 [1 or 3, H, W], turned upright as its EXIF data says.

    where: the name shown in errors (default: the path). max_pixels: default MAX_PIXELS.
    Raises BadInput for what cannot be read, is not an image, is truncated, too large, has 16 bits a channel, several
    frames, transparency, or another colour space than gray or RGB.
    """
    where = where or (shown(source) if isinstance(source, Path) else "the image")
    content = read_bytes(source, where=where) if isinstance(source, Path) else source
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    image = _open(content, where)
    _check_header(image, content, limit, where)
    return _to_array(_decode(image, where), where)


def read_bytes(path: Path, *, where: str, limit: int | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes (default MAX_BYTES). Raises BadInput."""
    limit = MAX_BYTES if limit is None else limit
    try:
        if not path.is_file():  # a pipe or a device would block or never end
            raise BadInput("this is not a regular file", where=where, fix="keep only image files here")
        if path.stat().st_size > limit:
            raise BadInput(f"the file is larger than {limit // 2**20} MiB", where=where, fix="use smaller files")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInput(f"the file cannot be read: {reason}", where=where, fix="check its permissions") from error


def resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [C, H, W] → [C, height, width], antialiased bilinear. The whole image stays; its aspect ratio does not."""
    if pixels.shape[1:] == (height, width):
        return pixels
    image = Image.fromarray(pixels[0] if pixels.shape[0] == GRAY else np.moveaxis(pixels, 0, -1))
    return _channels_first(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None))


def _open(content: bytes, where: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(where) from error
    except Exception as error:  # hostile bytes can make a decoder raise anything
        if content.startswith(_SIGNATURES):
            raise _damaged(where) from error
        raise BadInput(
            "this is not a PNG, JPEG or WebP image", where=where, fix="remove the file or convert it to PNG"
        ) from error


def _check_header(image: Image.Image, content: bytes, limit: int, where: str) -> None:
    if image.width * image.height > limit:
        raise _too_large(where, image, limit)
    deep = content.startswith(_PNG) and content[_PNG_BIT_DEPTH : _PNG_BIT_DEPTH + 1] == b"\x10"
    if deep or image.mode.split(";")[0] in _DEEP_MODES:
        raise BadInput(
            "the image has more than 8 bits a channel", where=where, fix="convert it to 8 bits a channel yourself"
        )
    if getattr(image, "n_frames", 1) > 1:
        raise BadInput("the image is animated", where=where, fix="keep one frame")


def _too_large(where: str, image: Image.Image | None = None, limit: int = MAX_PIXELS) -> BadInput:
    size = f" of {image.width} × {image.height} pixels" if image else ""
    return BadInput(
        f"an image{size} is too large: the limit is {limit} pixels",
        where=where,
        fix="use smaller images (robustdistill.inputs.pixels.MAX_PIXELS is the limit)",
    )


def _decode(image: Image.Image, where: str) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # as in _open
        raise _damaged(where) from error


def _damaged(where: str) -> BadInput:
    return BadInput("the image is truncated or damaged", where=where, fix="replace the file or remove it")


def _to_array(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("LA", "RGBA"):
        if image.getchannel("A").getextrema()[0] != 255:
            raise BadInput("the image is partly transparent", where=where, fix="flatten it onto a background")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode not in ("L", "RGB"):
        raise BadInput(f"the image's colours are {image.mode}", where=where, fix="convert it to gray or RGB")
    return _channels_first(image)


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0))
