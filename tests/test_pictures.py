"""One decoder: the same file gives the same pixels in training and in prediction, and the right ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_ablation import predict
from cnn_ablation.common.errors import DataError
from cnn_ablation.tasks.image_classification import data
from cnn_ablation.tasks.image_classification.config import ImageFolderConfig
from cnn_ablation.tasks.image_classification.data import image_folder, pictures

SIDE = 12
GREY = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
ORIENTATION = 0x0112


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour_type: int, rows: list[bytes], transparent: tuple[int, ...]) -> bytes:
    """A PNG file by the letter of its standard, as wide as high, with one transparent colour."""
    header = struct.pack(">IIBBBBB", len(rows), len(rows), depth, colour_type, 0, 0, 0)
    parts = {
        b"IHDR": header,
        b"tRNS": struct.pack(f">{len(transparent)}H", *transparent),
        b"IDAT": zlib.compress(b"".join(b"\0" + row for row in rows)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts.items())


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(Image.fromarray(COLOUR), kind, exif=exif)


def with_alpha(mode: str) -> Image.Image:
    """Left half transparent, the third column half so."""
    picture = Image.fromarray(COLOUR).convert(mode)
    alpha = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    alpha[:, : SIDE // 2], alpha[:, 2] = 0, 128
    picture.putalpha(Image.fromarray(alpha))
    return picture


def palette(transparent: bool) -> bytes:
    picture = Image.fromarray(COLOUR).quantize(16)
    return encoded(picture, **({"transparency": bytes(range(0, 256, 16))} if transparent else {}))


FILES: dict[str, Callable[[], bytes]] = {
    "1": lambda: encoded(Image.fromarray(GREY).convert("1")),
    "L": lambda: encoded(Image.fromarray(GREY)),
    "L jpeg": lambda: encoded(Image.fromarray(GREY), "JPEG"),
    "LA": lambda: encoded(with_alpha("L")),
    "P": lambda: palette(transparent=False),
    "P transparent": lambda: palette(transparent=True),
    "RGB": lambda: encoded(Image.fromarray(COLOUR)),
    "RGB jpeg": lambda: encoded(Image.fromarray(COLOUR), "JPEG"),
    "RGB one colour transparent": lambda: encoded(Image.fromarray(COLOUR), transparency=tuple(COLOUR[0, 0].tolist())),
    "RGBA": lambda: encoded(with_alpha("RGB")),
    "CMYK": lambda: encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
    "YCbCr": lambda: encoded(Image.fromarray(COLOUR).convert("YCbCr"), "TIFF"),
    "LAB": lambda: encoded(Image.new("LAB", (SIDE, SIDE), (128, 140, 110)), "TIFF"),
    "I;16": lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 200)),
    "I;16B": lambda: encoded(Image.frombytes("I;16B", (SIDE, SIDE), GREY.astype(">u2").tobytes()), "TIFF"),
    "I": lambda: encoded(Image.fromarray(GREY.astype(np.int32) * 200), "TIFF"),
    "I of a PGM": lambda: encoded(Image.fromarray(GREY.astype(np.uint16) * 200), "PPM"),
    "F": lambda: encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "EXIF of a JPEG": lambda: turned(6, "JPEG"),
    "EXIF of a PNG": lambda: turned(5, "PNG"),
}


def folder_of(file: bytes, tmp_path: Path, **settings: object) -> tuple[ImageFolderConfig, Path]:
    """An image folder that holds the file once as test picture; the training pictures are plain."""
    for name in ("a", "b"):
        for part, count in (("train", 4), ("test", 1)):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(FILES["RGB"]())
    path = tmp_path / "images" / "test" / "b" / "0.png"
    path.write_bytes(file)
    config = ImageFolderConfig(
        root=str(tmp_path / "images"), cache=str(tmp_path / "cache"), val_fraction=0.25, **settings
    )
    return config, path


@pytest.mark.parametrize("size", [None, 7, 20], ids=["native", "smaller", "larger"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("name", FILES)
def test_training_and_prediction_see_the_same_pixels(
    name: str, channels: int, size: int | None, tmp_path: Path
) -> None:
    config, path = folder_of(FILES[name](), tmp_path, channels=channels, image_size=size)
    trained_on = data.load(config).test.images[1:]
    (picture,) = predict._opened([path])
    np.testing.assert_array_equal(predict.as_input(picture, channels, size or SIDE), trained_on)


@pytest.mark.parametrize("size", [None, 7], ids=["native", "resized"])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("name", ["L", "L jpeg", "RGB", "RGB jpeg"])
def test_plain_pictures_are_what_pillow_says(
    name: str, mode: str, channels: int, size: int | None, tmp_path: Path
) -> None:
    config, path = folder_of(FILES[name](), tmp_path, channels=channels, image_size=size)
    with Image.open(path) as file:
        expected = file.convert(mode).resize((size or SIDE,) * 2, Image.Resampling.BICUBIC)
    expected_pixels = np.asarray(expected).reshape(size or SIDE, size or SIDE, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.load(config).test.images[1], expected_pixels)


def seen(file: bytes, tmp_path: Path, channels: int = 3) -> np.ndarray:
    """Pixels (height, width, channels) of a file."""
    path = tmp_path / "file.png"
    path.write_bytes(file)
    return pictures.pixels(pictures.opened(path), channels).astype(int)


def deep(*levels: int) -> bytes:
    row = struct.pack(">2H", *levels)
    return png(16, 0, [row, row], (700,))


TWO = 0b01_00_00_00
RED, RED_16 = bytes([255, 0, 0]), struct.pack(">3H", 65535, 9, 9)
GREEN, GREEN_16 = bytes([0, 255, 0]), struct.pack(">3H", 9, 65535, 9)


@pytest.mark.parametrize(
    ("file", "left", "right"),
    [
        (lambda: deep(32768, 65535), [128] * 3, [255] * 3),
        (lambda: deep(32768, 0), [128] * 3, [0] * 3),
        (lambda: deep(700, 300), [255] * 3, [1] * 3),
        (lambda: png(2, 0, [bytes([TWO])] * 2, (1,)), [255] * 3, [0] * 3),
        (lambda: png(4, 0, [bytes([0x7F])] * 2, (15,)), [7 * 17] * 3, [255] * 3),
        (lambda: png(1, 0, [bytes([0b01000000])] * 2, (0,)), [255] * 3, [255] * 3),
        (lambda: png(8, 2, [RED + GREEN] * 2, (255, 0, 0)), [255] * 3, [0, 255, 0]),
        (lambda: png(16, 2, [RED_16 + GREEN_16] * 2, (65535, 9, 9)), [255] * 3, [0, 255, 0]),
        (
            lambda: encoded(Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 128]]] * 2, dtype=np.uint8))),
            [255] * 3,
            [round((value * 128 + 255 * 127) / 255) for value in (10, 20, 30)],
        ),
        (lambda: encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF"), [255, 0, 0], [255, 0, 0]),
        (lambda: encoded(Image.fromarray(np.array([[-5, 32768]] * 2, dtype=np.int32)), "TIFF"), [0] * 3, [128] * 3),
        (lambda: encoded(Image.fromarray(np.array([[np.nan, 99.6]] * 2, np.float32)), "TIFF"), [0] * 3, [100] * 3),
        (lambda: encoded(Image.fromarray(np.array([[-1, 300]] * 2, np.float32)), "TIFF"), [0] * 3, [255] * 3),
    ],
    ids=[
        "16 bits", "16 bits beside black", "16 bits transparent", "2 bits transparent", "4 bits transparent",
        "1 bit transparent", "RGB transparent", "16-bit RGB transparent", "RGBA half transparent", "CMYK red",
        "32 bits", "floats", "floats beyond white",
    ],
)  # fmt: skip
def test_pixels_by_the_letter(file: Callable[[], bytes], left: list[int], right: list[int], tmp_path: Path) -> None:
    row = seen(file(), tmp_path)[0].tolist()
    assert row == [left, right]


# Where the first row and column of the stored picture appear, as EXIF 2.3 defines the values (4.6.4 A).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_stand_upright(orientation: int, tmp_path: Path) -> None:
    np.testing.assert_array_equal(seen(turned(orientation, "PNG"), tmp_path), UPRIGHT[orientation](COLOUR))


def test_an_exif_entry_that_cannot_be_read_costs_no_picture(tmp_path: Path) -> None:
    file = encoded(Image.fromarray(COLOUR), exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40))
    np.testing.assert_array_equal(seen(file, tmp_path), COLOUR)


def test_the_size_of_a_picture_is_that_of_the_upright_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    config, _ = folder_of(FILES["RGB"](), tmp_path)
    (tmp_path / "images" / "train" / "a" / "0.png").write_bytes(encoded(Image.new("RGB", (10, 20)), exif=exif))
    with pytest.raises(DataError, match=r"0\.png is 20x10 pixels; set data\.image_size=N"):
        data.describe(config)


def test_the_cache_of_another_decoder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another source text of the decoder is another decoder."""
    config, _ = folder_of(FILES["RGBA"](), tmp_path)
    right = data.load(config).digest
    (cache,) = (tmp_path / "cache").iterdir()
    np.savez(cache, train=np.zeros((8, 3, SIDE, SIDE), np.uint8), test=np.zeros((2, 3, SIDE, SIDE), np.uint8))
    data.forget()
    assert data.load(config).digest != right
    other = tmp_path / "pictures.py"
    other.write_bytes(Path(pictures.__file__).read_bytes() + b"\n# changed\n")
    monkeypatch.setattr(pictures, "__file__", str(other))
    image_folder._decoder_version.cache_clear()
    data.forget()
    assert data.load(config).digest == right
    image_folder._decoder_version.cache_clear()


# -- what is no picture ------------------------------------------------------------------------------------------------


def test_a_picture_that_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's DecompressionBombError is no OSError, and below that it only warns."""
    config, path = folder_of(FILES["RGB"](), tmp_path)
    first = tmp_path / "images" / "train" / "a" / "0.png"
    for large in (path, first):
        large.write_bytes(encoded(Image.new("RGB", (40, 40))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    assert data.describe(config).image_size == SIDE
    with pytest.raises(DataError) as error:
        data.load(config)
    for large in (path, first):
        assert f"{large} cannot be read as a picture (too large: more than 1,400 pixels)" in str(error.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # all others are between the warning and the error
    with pytest.raises(DataError, match="train: 1 of 8 images"):
        data.load(config)


def hostile() -> list[bytes]:
    """Whole files cut short, with bytes overwritten, and with a chunk of another length."""
    generator = np.random.default_rng(0)
    found = []
    for name in ("RGB", "RGB jpeg", "P transparent", "EXIF of a JPEG", "I;16", "CMYK", "LA"):
        whole = FILES[name]()
        found += [whole[: int(len(whole) * share)] for share in (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 0.99)]
        for _ in range(25):
            broken = bytearray(whole)
            for place in generator.integers(0, min(len(whole), 400), 4):
                broken[place] = generator.integers(256)
            found.append(bytes(broken))
    return found


def complaint(path: Path) -> str:
    """What is said of a file; nothing where it is a picture."""
    try:
        assert pictures.opened(path).mode in ("L", "RGB")
    except DataError as error:
        return str(error)
    return ""


def test_nothing_but_our_own_error_comes_out_of_hostile_files(tmp_path: Path) -> None:
    """Warnings are errors here; a file that is still a picture may be one."""
    paths = []
    for number, file in enumerate(hostile()):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(file)
    with pictures.without_remarks():
        complaints = {path: text for path in paths if (text := complaint(path))}
    assert 50 < len(complaints) < len(paths)
    for path, text in complaints.items():
        assert text.startswith(f"{path} cannot be read as a picture (")
        assert len(text.splitlines()) == 1
