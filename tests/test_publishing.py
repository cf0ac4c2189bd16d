"""Published scenes: the same again on import, valid metadata, and nothing private in the photos."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from relocal.cli import parse
from relocal.datasets import import_scene
from relocal.datasets.published import CHECKSUMS, sha256
from relocal.errors import InputError
from relocal.images.metadata import without_metadata
from relocal.publishing import LICENCES, PublishConfig, publish
from relocal.scene import Scene, load_scene, save_scene

OPTIONS = PublishConfig(license="CC-BY-4.0", author=("Ada Doe", "Bo Ek"), date="2026-01-31")
MODEL = ("cameras", "images", "points3D", "rigs", "frames")
SECRET = b"somewhere private"


@pytest.fixture(scope="module")
def published(tiny_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert tiny_scene.folder is not None
    return publish(tiny_scene.folder, tmp_path_factory.mktemp("published") / "place", OPTIONS)


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in found}


def test_a_published_scene_is_the_same_again(
    tiny_scene: Scene, published: Path, tmp_path: Path
) -> None:
    again = import_scene("published", published, tmp_path / "again")
    assert tiny_scene.folder is not None
    for part in ("scene.json", *(f"sparse/0/{name}.bin" for name in MODEL)):
        wanted = (tiny_scene.folder / part).read_bytes()
        assert (published / part).read_bytes() == wanted
        assert (tmp_path / "again" / part).read_bytes() == wanted
    assert again.splits == load_scene(tiny_scene.folder).splits
    photos = {name: value for name, value in files(published).items() if name.startswith("images/")}
    assert photos.items() <= files(tmp_path / "again").items()
    publish(tmp_path / "again", tmp_path / "published again", OPTIONS)
    assert files(tmp_path / "published again") == files(published)


def test_import_can_split_a_published_scene_anew(published: Path, tmp_path: Path) -> None:
    again = import_scene("published", published, tmp_path / "again", split="last:25%")
    assert again.provenance["split"] == "last:25%"


def test_checksums_are_those_that_the_usual_tool_checks(published: Path) -> None:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("sha256sum is not installed")
    done = subprocess.run([tool, "-c", "--strict", CHECKSUMS], cwd=published, capture_output=True)
    assert done.returncode == 0
    assert set(files(published)) - {CHECKSUMS} == {
        line.split("  ", 1)[1] for line in (published / CHECKSUMS).read_text().splitlines()
    }


@pytest.mark.filterwarnings("ignore")  # of the reader's own parts
def test_the_metadata_is_valid_and_holds_the_poses(tiny_scene: Scene, published: Path) -> None:
    import mlcroissant

    read: Any = mlcroissant.Dataset(jsonld=str(published / "croissant.json"))
    assert not read.metadata.ctx.issues.errors
    assert not read.metadata.ctx.issues.warnings
    rows = list(read.records("poses"))
    names = [row["poses/file_name"].decode() for row in rows]
    assert names == [f"images/{name}" for name in tiny_scene.images]
    assert all((published / name).is_file() for name in names)
    centre = torch.tensor([[row[f"poses/{k}"] for k in "xyz"] for row in rows]).double()
    turn = torch.tensor([[row[f"poses/q{k}"] for k in "wxyz"] for row in rows]).double()
    torch.testing.assert_close(centre, tiny_scene.poses.position, atol=1e-6, rtol=0)
    torch.testing.assert_close(turn, tiny_scene.poses.quaternion, atol=1e-6, rtol=0)
    content = json.loads((published / "croissant.json").read_text())
    assert content["license"] == LICENCES["CC-BY-4.0"].url
    assert content["datePublished"] == "2026-01-31"
    table = next(part for part in content["distribution"] if part["@id"] == "metadata.csv")
    assert table["sha256"] == sha256(published / "metadata.csv")


def test_splits_and_the_table_agree(tiny_scene: Scene, published: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((published / "metadata.csv").read_text())))
    for split, names in tiny_scene.splits.items():
        listed = (published / "splits" / f"{split}.txt").read_text().splitlines()
        assert listed == list(names)
        assert [row["file_name"] for row in rows if row["split"] == split] == [
            f"images/{name}" for name in names
        ]


def test_the_card_says_what_a_reader_wants_to_know(published: Path) -> None:
    card = (published / "README.md").read_text()
    header = card.split("---")[1]
    assert "license: cc-by-4.0" in header
    for words in ("Ada Doe, Bo Ek", "relocal import published", "## Citation", "](label.png)"):
        assert words in card
    with Image.open(published / "label.png") as picture:
        assert picture.width > 500
    assert "SPDX-License-Identifier: CC-BY-4.0" in (published / "LICENSE").read_text()


def test_a_licence_may_be_a_file_of_ones_own(tiny_scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Ask us.\n")
    options = replace(OPTIONS, license=str(tmp_path / "own.txt"))
    assert tiny_scene.folder is not None
    out = publish(tiny_scene.folder, tmp_path / "out", options)
    assert (out / "LICENSE").read_text() == "Ask us.\n"
    assert "license: other" in (out / "README.md").read_text()


def _cut(folder: Path) -> None:
    photo = next(folder.glob("images/**/*.jpg"))
    content = photo.read_bytes()
    photo.unlink()
    photo.write_bytes(content[:-100])


def _other_pose(folder: Path) -> None:
    model = folder / "sparse/0/images.bin"
    content = bytearray(model.read_bytes())
    content[20] ^= 1
    model.write_bytes(content)


def _unlisted(folder: Path) -> None:
    lines = (folder / CHECKSUMS).read_text().splitlines(keepends=True)
    (folder / CHECKSUMS).write_text("".join(line for line in lines if "images.bin" not in line))


def _binary(folder: Path) -> None:
    (folder / CHECKSUMS).write_bytes(b"\xff\xfe\x00")


def _outside(folder: Path) -> None:
    with (folder / CHECKSUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../secret\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "not as they were published: images/"),
        (_other_pose, "not as they were published: sparse/0/images.bin"),
        (_unlisted, "says nothing of sparse/0/images.bin"),
        (_outside, "is no line of checksums"),
        (_binary, "is no list of checksums"),
        (lambda folder: (folder / "LICENSE").unlink(), "1 files are missing: LICENSE"),
        (lambda folder: (folder / CHECKSUMS).unlink(), "there is no such file"),
    ],
    ids=["photo", "pose", "unlisted", "outside", "binary", "missing", "no checksums"],
)
def test_what_is_not_as_it_was_published_is_refused(
    copy: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(copy)
    with pytest.raises(InputError, match=reason):
        import_scene("published", copy, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def phone_jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    """A JPEG file with a place, a comment, XMP and a second image behind it, as phones write it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = SECRET.decode()
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitude: (52.0, 31.0, 12.0)}
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, format="JPEG", exif=exif, comment=SECRET, xmp=SECRET, **options
    )
    return file.getvalue() * 2


def pixels_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    grey=st.booleans(),
    progressive=st.booleans(),
    restart=st.integers(0, 3),
    quality=st.integers(5, 100),
)
def test_metadata_goes_and_pixels_stay(
    seed: int, height: int, width: int, grey: bool, progressive: bool, restart: int, quality: int
) -> None:
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = phone_jpeg(
        pixels,
        progressive=progressive,
        restart_marker_blocks=restart,
        quality=quality,
        icc_profile=profile,
    )
    bare = without_metadata(content, "a.jpg")
    assert SECRET in content
    assert SECRET not in bare
    assert len(bare) < len(content) / 2
    np.testing.assert_array_equal(pixels_of(bare), pixels_of(content))
    with Image.open(io.BytesIO(bare)) as image:
        assert not len(image.getexif())
        assert image.info["icc_profile"] == profile
    assert without_metadata(bare, "a.jpg") == bare


def test_png_files_say_nothing_either_and_others_are_refused() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", SECRET.decode())
    words.add_itxt("Author", SECRET.decode())
    words.add(b"caBX", SECRET)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = SECRET.decode()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", pnginfo=words, exif=exif)
    file.write(SECRET)  # behind the end, as of a picture that was cut
    bare = without_metadata(file.getvalue(), "a.png")
    assert file.getvalue().count(SECRET) >= 4
    assert SECRET not in bare
    np.testing.assert_array_equal(pixels_of(bare), pixels)


@pytest.mark.parametrize(
    ("kind", "name"), [("WEBP", "a.webp"), ("TIFF", "a.tif"), ("BMP", "a.bmp")]
)
def test_files_of_other_kinds_say_nothing_or_are_refused(kind: str, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    plain = file.getvalue()
    assert without_metadata(plain, name) == plain
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = SECRET.decode()
    talking = io.BytesIO()
    if kind == "BMP":
        talking.write(plain + SECRET)
    else:
        Image.fromarray(pixels).save(talking, format=kind, exif=exif)
    for content in (talking.getvalue(), plain + SECRET if kind == "WEBP" else talking.getvalue()):
        with pytest.raises(InputError, match=f"{name}: its file may say when, where"):
            without_metadata(content, name)
    with pytest.raises(InputError, match=f"{name}: this is not a photo"):
        without_metadata(SECRET, name)


def test_filling_before_restarts_is_no_end_of_a_scan() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    content = phone_jpeg(pixels, restart_marker_blocks=2, progressive=False)
    content = content[: len(content) // 2]
    scan = content.index(b"\xff\xda")
    place = content.index(b"\xff\xd1", scan)
    content = content[:place] + b"\xff\xff" + content[place:]
    bare = without_metadata(content, "a.jpg")
    assert SECRET not in bare
    np.testing.assert_array_equal(pixels_of(bare), pixels_of(content))


def test_an_account_of_labels_that_is_none_is_refused(tiny_scene: Scene, tmp_path: Path) -> None:
    labels = {"mean_reprojection_error_px": 0.5, "mean_track_length": 4, "scale": 3}
    about = {**tiny_scene.provenance, "label": labels}
    scene = save_scene(replace(tiny_scene, provenance=about), tmp_path / "scene")
    with pytest.raises(InputError, match=r"scene\.json: its provenance\.label is not what label"):
        publish(scene.folder or "", tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_damaged_photos_and_folders_inside_the_scene_are_refused(
    tiny_scene: Scene, tmp_path: Path
) -> None:
    assert tiny_scene.folder is not None
    scene = Path(shutil.copytree(tiny_scene.folder, tmp_path / "scene"))
    with pytest.raises(InputError, match="lies in the scene itself"):
        publish(scene, scene / "sparse" / "out", OPTIONS)
    photo = scene / "images" / tiny_scene.images[3]
    content = photo.read_bytes()
    photo.unlink()
    photo.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=photo.name):
        publish(scene, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_titles_may_hold_any_characters(tiny_scene: Scene, tmp_path: Path) -> None:
    assert tiny_scene.folder is not None
    title = 'A "home" {&%_#} \\ ```\n\U0001f3e0: 1'
    options = replace(OPTIONS, title=title, author=("Doe, Ada",), license="ODbL-1.0")
    card = (publish(tiny_scene.folder, tmp_path / "out", options) / "README.md").read_text()
    assert json.loads(card.split("pretty_name: ")[1].split("\n")[0]) == " ".join(title.split())
    assert "\U0001f3e0" in card
    assert "license: odbl\n" in card
    assert "@misc{Doe2026," in card
    assert card.split("---", 2)[2].count("```") == 4


@pytest.mark.parametrize("keep", [False, True])
def test_a_published_scene_says_nothing_of_the_place_unless_asked(
    tiny_scene: Scene, tmp_path: Path, keep: bool
) -> None:
    root = tmp_path / "photos"
    for i, name in enumerate(tiny_scene.images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(phone_jpeg(pixels_of(tiny_scene.path(i).read_bytes())))
    place: dict[str, Any] = {"origin_lat_lon_alt": [52.5, 13.4, 40.0]}
    scale = {"by": "gps", "images": 3, "median_residual_m": 0.5, **place}
    numbers = {"mean_reprojection_error_px": 0.5, "mean_track_length": 4.0, "scale": scale}
    provenance = {**tiny_scene.provenance, "label": numbers}
    scene = save_scene(
        replace(tiny_scene, image_root=root, provenance=provenance), tmp_path / "scene"
    )
    assert scene.folder is not None
    out = publish(scene.folder, tmp_path / "out", replace(OPTIONS, keep_metadata=keep))
    photos = b"".join(path.read_bytes() for path in out.rglob("*.jpg"))
    assert (SECRET in photos) == keep
    assert "fitted to the gps of 3 images" in (out / "README.md").read_text()
    assert ("origin_lat_lon_alt" in (out / "scene.json").read_text()) == keep
    assert len(import_scene("published", out, tmp_path / "again")) == len(tiny_scene)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"license": "CC-BY"}, "Did you mean"),
        ({"author": (" ",)}, "names nobody"),
        ({"version": "1"}, "three numbers"),
        ({"url": "example"}, "https://"),
        ({"date": "31.1.2026"}, "is a day"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        replace(OPTIONS, **options)


def test_the_verb_publishes(
    tiny_scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["publish", str(tiny_scene.folder), "--license", "CC0-1.0", "--author", "Ada Doe"]
    assert parse([*words, "--out", str(tmp_path / "out")]).run() == 0
    assert f"relocal import published {tmp_path / 'out'}" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists already"):
        parse([*words, "--out", str(tmp_path / "out")]).run()
