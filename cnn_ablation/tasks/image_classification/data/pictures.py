"""Picture files -> pixels: the one decoder, for training and for prediction.

The cache of decoded pictures knows which decoder wrote it by the source text of this file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_ablation.common.errors import DataError

_LONGEST_REASON = 160
_COLOUR_KEY_SCALE = {"L;2": 85, "L;4": 17}  # Pillow scales the pixels of these PNG files, not their transparent level
_GREY = ("1", "L")


@contextmanager
def without_remarks() -> Iterator[None]:
    """Silences what Pillow remarks about odd files, so that no answer depends on how warnings are treated.

    Holds for the whole process: entered once around the threads that decode, never inside one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def opened(path: str | Path) -> Any:
    """A picture file as a PIL image of mode L or RGB: upright by its EXIF orientation, on white where transparent.

    Levels of more than 8 bits are scaled by their depth, whatever other levels the picture holds.

    Raises:
        DataError: the file is missing, damaged, too large or no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            _mend_colour_key(file)
            file.load()
            return _opaque(_upright(file))
    except Exception as error:  # on hostile files Pillow raises whatever its formats' code happens to raise
        raise DataError(f"{path} cannot be read as a picture ({_reason(path, error)})") from error


def pixels(picture: Any, channels: int, size: int | None = None) -> npt.NDArray[np.uint8]:
    """Pixels (height, width, channels) of an image from `opened`: converted first, then resized by bicubic filtering.

    Args:
        picture: of mode L or RGB.
        channels: 1 or 3.
        size: height and width wanted; other shapes are squeezed. None keeps the picture's own.
    """
    from PIL import Image

    mode = "RGB" if channels == 3 else "L"
    converted = picture if picture.mode == mode else picture.convert(mode)
    if size is not None and converted.size != (size, size):
        converted = converted.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(converted).reshape(converted.height, converted.width, channels)


def _upright(file: Any) -> Any:
    """The image turned as its EXIF orientation says; an entry that cannot be read says nothing."""
    from PIL import ExifTags, ImageOps

    try:
        is_upright = file.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # the pixels are whole
        is_upright = True
    return file if is_upright else ImageOps.exif_transpose(file)


def _opaque(picture: Any) -> Any:
    """An image of any mode in L or RGB."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_grey_levels(picture))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    mode = "L" if picture.mode in _GREY else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _grey_levels(picture: Any) -> npt.NDArray[np.uint8]:
    """Levels beyond 8 bits in 0..255.

    Whole numbers (I;16, I) are 16-bit levels, of which 65535 is white, and floats (F) count as 8-bit levels do, as
    Pillow understands both modes. What lies beyond white is white.
    """
    levels = np.asarray(picture)
    if picture.mode.startswith("I"):
        scaled = (np.clip(levels.astype(np.int64), 0, 65535) + 128) // 257
        scaled[levels == picture.info.get("transparency")] = 255
    else:
        scaled = np.rint(np.clip(np.nan_to_num(levels), 0, 255))
    return scaled.astype(np.uint8)


def _mend_colour_key(file: Any) -> None:
    """Brings the transparent colour of a PNG file into the range into which Pillow brings its pixels."""
    key = file.info.get("transparency")
    raw_mode = file.tile[0][3] if file.format == "PNG" and file.tile else None
    if raw_mode in _COLOUR_KEY_SCALE and isinstance(key, int):
        file.info["transparency"] = key * _COLOUR_KEY_SCALE[raw_mode]
    elif raw_mode == "RGB;16B" and isinstance(key, tuple):
        file.info["transparency"] = tuple(level >> 8 for level in key)


def _reason(path: str | Path, error: Exception) -> str:
    """What is wrong with a file, in a few words."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        return f"too large: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "no picture of a known format" if Path(path).stat().st_size else "the file is empty"
    words = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return words[:_LONGEST_REASON] or type(error).__name__
