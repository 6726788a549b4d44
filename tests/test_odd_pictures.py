"""Odd pictures, all generated: what is opened, refused and left out, alike in prepare and predict."""

import csv
import json
import struct
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakegan import predict, prepare
from fakegan.data.colour import UNUSABLE
from fakegan.data.formats import NO_PICTURE
from fakegan.data.images import Geometry, ImageError, read_face
from fakegan.data.store import FaceStore
from fakegan.runs.folder import DETECTOR_FILE
from tests.helpers import encode
from tests.test_images import png_header, scene
from tests.test_predict import detector


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def p3_profile() -> bytes:
    """The smallest profile of Display P3: its primaries (D50) and sRGB's curve."""
    curve = (
        b"para"
        + bytes(4)
        + struct.pack(">HH", 3, 0)
        + b"".join(map(s15, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    )
    text = "P3 by hand".encode("utf-16-be")
    tags = {b"desc": b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + b"".join(map(s15, (0.9642, 1.0, 0.8249)))
    primaries = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = b"XYZ " + bytes(4) + b"".join(map(s15, xyz))
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    at, table, bodies = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    header = bytes(4) + b"\4\x20\0\0".rjust(8, b"\0") + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(map(s15, (0.9642, 1.0, 0.8249)))
    whole = header.ljust(128, b"\0") + table + bodies
    return struct.pack(">I", len(whole)) + whole[4:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(*chunks: bytes) -> bytes:
    """A sound PNG with these after its header."""
    source = encode(scene())
    return source[:33] + b"".join(chunks) + source[33:]


LARGE = zlib.compress(bytes(2 * 2**20))
TEXTS = {
    "ztxt": with_chunks(chunk(b"zTXt", b"parameters\0\0" + LARGE)),
    "itxt": with_chunks(chunk(b"iTXt", b"parameters\0\1\0\0\0" + LARGE)),
    "iccp": with_chunks(chunk(b"iCCP", b"scanner\0\0" + LARGE)),
    "text": with_chunks(*[chunk(b"tEXt", b"k\0" + b"x" * 2**20)] * 70),
}


def bomb_gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    control = b"\x21\xf9\4\x08\0\0\0\0"  # dispose to background: Pillow makes room for the frame as it opens the file
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", *screen, 0, 0, 0)
        + control
        + b","
        + struct.pack("<HHHHB", 0, 0, *frame, 0)
        + b"\2\1\0\0;"
    )


def odd_files() -> dict[str, tuple[bytes, str]]:
    """Name -> content and reason; "" where it is a face."""
    picture = scene()
    jpeg = encode(picture, "JPEG")
    files = {f"jpeg{suffix}": (jpeg, "") for suffix in (".jfif", ".jpe", ".JPG", ".png", ".photo", "")}
    files |= {f"a.{kind}": (encode(picture, kind), "") for kind in ("tiff", "bmp", "gif", "webp", "png")}
    if "AVIF" in Image.SAVE:
        files["a.avif"] = (encode(picture, "AVIF"), "")
    files |= {f"large_{name}.png": (source, "") for name, source in TEXTS.items()}
    files["p3.jpg"] = (encode(picture, "JPEG", icc_profile=p3_profile()), "")
    files["broken_profile.jpg"] = (encode(picture, "JPEG", icc_profile=b"no profile"), "")
    bare = "truncated, damaged or an unusual kind of HEIC"
    needs = "HEIC: it needs pip install -e '.[heic]', or the picture as JPEG"
    files["telephone"] = (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", bare if find_spec("pillow_heif") else needs)
    files["page.pdf"] = (b"%PDF-1.7", NO_PICTURE)
    files["old.psd"] = (b"8BPS\0\1", NO_PICTURE)
    files["nothing.jpg"] = (b"", "empty file")
    files["half.jpg"] = (jpeg[: len(jpeg) // 2], "truncated or damaged")
    tiff = encode(picture, "TIFF", compression="tiff_lzw")
    files["half.tif"] = (tiff[: len(tiff) // 2], "truncated, damaged or an unusual kind of TIFF")
    files["float.tif"] = (
        encode(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
        "TIFF values of an unusual kind: save it with 8 or 16 bits a colour",
    )
    head = encode(picture, "TIFF", tiffinfo={254: 0})
    assert head[10:14] == struct.pack("<HH", 254, 4)  # NewSubfileType, a number
    files["tag.tif"] = (head[:12] + b"\7" + head[13:], "truncated, damaged or an unusual kind of TIFF")  # now bytes
    files["raw.dng"] = (
        encode(picture, "TIFF", tiffinfo={254: 1}),
        "a camera's raw file: what lies open in it is a thumbnail; export it as JPEG",
    )
    above = "is above the limit of 256 megapixels (--max-megapixels)"
    files["screen.gif"] = (bomb_gif((65535, 65535), (1, 1)), f"65535x65535 {above}")
    files["frame.gif"] = (bomb_gif((1, 1), (65535, 65535)), f"65535x65535 {above}")
    canvas = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\0" * 2
    files["canvas.webp"] = (canvas, f"65536x65536 {above}")
    files["huge.png"] = (png_header(20_000, 20_000), f"20000x20000 {above}")
    return files


def test_prepare_and_predict_say_the_same_of_each_odd_file(tmp_path: Path, capfd) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    expected = odd_files()
    for name, (content, _) in expected.items():
        (folder / name).write_bytes(content)
    for name in ("notes.txt", "more.txt", "faces.csv", ".DS_Store", "Thumbs.db"):
        (folder / name).write_text("no picture")
    assert prepare.main(["--real", f"a={folder}", "--out", str(tmp_path / "store"), "--workers", "1"]) == 0
    said = "left out, clearly no pictures: 2 .txt, 1 .csv, 1 .ds_store, 1 thumbs.db"
    assert said in capfd.readouterr().out
    with (tmp_path / "store" / "rejected.csv").open() as lines:
        reasons = {row["file"].removeprefix("a/"): row["reason"] for row in csv.DictReader(lines)}
    reasons |= {file.removeprefix("a/"): "" for file in FaceStore.open(tmp_path / "store").files}
    assert reasons == {name: reason for name, (_, reason) in expected.items()}

    (tmp_path / "run").mkdir()
    detector().save(tmp_path / "run" / DETECTOR_FILE)
    words = ["--run", tmp_path / "run", "--device", "cpu", "--workers", 1, "--format", "json", folder]
    assert predict.main([str(word) for word in words]) == 1
    out, err = capfd.readouterr()
    rows = json.loads(out)
    assert said in err
    assert {Path(row["file"]).name: row["error"] for row in rows} == reasons
    warned = {Path(row["file"]).name for row in rows if "colour profile cannot be used" in row["warning"]}
    assert warned == {"broken_profile.jpg", "large_iccp.png"}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_texts_count_for_nothing(name: str) -> None:
    assert (read_face(TEXTS[name], Geometry()).pixels == read_face(encode(scene()), Geometry()).pixels).all()


def test_a_profile_becomes_srgb() -> None:
    """sRGB's red is (0.9175, 0.2003, 0.1386) in Display P3: (234, 51, 35)."""
    source = encode(Image.new("RGB", (64, 64), (234, 51, 35)), "PNG", icc_profile=p3_profile())
    face = read_face(source, Geometry())
    assert face.profile == "P3 by hand"
    assert np.abs(face.pixels.astype(int) - (255, 0, 0)).max() <= 2
    ignored = read_face(source, Geometry.of({"size": 64, "crop": True, "max_megapixels": 64}))  # an older store's
    assert (ignored.profile, tuple(ignored.pixels[0, 0])) == ("P3 by hand", (234, 51, 35))
    assert read_face(encode(scene(), icc_profile=b"broken"), Geometry()).profile == UNUSABLE


def test_classes_that_differ_in_profile_or_greyness_are_warned_about(tmp_path: Path, capsys) -> None:
    for name, options in (("r", {"icc_profile": p3_profile()}), ("f", {})):
        (tmp_path / name).mkdir()
        picture = scene() if name == "r" else scene().convert("L")
        (tmp_path / name / "0.png").write_bytes(encode(picture, **options))
    words = ["--real", f"a={tmp_path / 'r'}", "--fake", f"b={tmp_path / 'f'}", "--out", tmp_path / "s", "--workers", 1]
    for option in ([], ["--ignore-profiles", "--overwrite"]):  # ignored, a profile shifts its class all the more
        assert prepare.main([str(word) for word in words + option]) == 0
        assert "differ in colour profile P3 by hand (100% / 0%), grey pictures (0% / 100%)" in capsys.readouterr().out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", [True, False])
def test_bands_change_nothing(orientation: int, crop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As turned, cropped and resized whole by Pillow."""
    monkeypatch.setattr("fakegan.data.images._BAND", 5000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (333, 701, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encode(noise, exif=exif)
    turns = (None, None, 0, 3, 1, 5, 4, 6, 2)  # by orientation: Pillow's transpositions
    whole = noise if turns[orientation] is None else noise.transpose(Image.Transpose(turns[orientation]))
    if crop:
        left, top = (whole.width - 333) // 2, (whole.height - 333) // 2
        whole = whole.crop((left, top, left + 333, top + 333))
    expected = np.asarray(whole.resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=2.0))
    assert (read_face(source, Geometry(crop=crop)).pixels == expected).all()


def test_telephones_pass_by_default() -> None:
    with pytest.raises(ImageError, match="truncated or damaged"):  # by its size it passes: it holds no pixels
        read_face(png_header(16384, 12288), Geometry())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(("kind", "each"), [("JPEG", 4), ("PNG", 4), ("WEBP", 16)])
def test_a_large_picture_takes_the_memory_that_is_promised(kind: str, each: int, tmp_path: Path) -> None:
    """Its file, `each` bytes a pixel and 35 MB, with 10 MB to spare; one more copy of it would be 72 MB or more."""
    width, height = 6000, 4000
    file = tmp_path / "large"
    scene().resize((width, height)).save(file, kind, quality=90)
    script = (
        "import re, sys; from fakegan.data.images import Geometry, read_face_file; import fakegan.data.damage; "
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) * 1024; "
        "before = peak(); read_face_file(sys.argv[1], Geometry()); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)
    assert int(done.stdout) < file.stat().st_size + each * width * height + 45e6
