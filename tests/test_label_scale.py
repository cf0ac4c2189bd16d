"""What gives photos their scale and split, told before they are placed."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from labelled_room import QUICK
from PIL import ExifTags, Image

from relocal.cli.labelling import next_steps
from relocal.errors import InputError
from relocal.scene import Scene
from relocal.sfm import label
from relocal.sfm.places import gps_place
from relocal.sfm.sources import gather

ONE, OTHER = "seq-01/frame-000000.jpg", "seq-01/frame-000011.jpg"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scale": f"{OTHER},frame-000000.jpg=1"}, "there is no .frame-000000.jpg.. Did you mean"),
        ({"scale": f"{ONE},{ONE}=1"}, "names one image twice"),
        ({"scale": f"{ONE},{OTHER}=-1"}, "give two images and the metres"),
        ({"scale": f"{ONE},{OTHER}=1e-320"}, "give two images and the metres"),
        ({"scale": f"{ONE}=1"}, "give two images and the metres"),
        ({"scale": "gps"}, "0 of 34 photos have a GPS place"),
        ({"scale": "nowhere.txt"}, "nowhere.txt: there is no such file"),
        ({"scale": "."}, "--scale .: is no file"),
        ({"scale": "strange.txt"}, f"the poses of 0 of 34 photos.*such as {ONE}"),
        ({"scale": "line.txt"}, "the images lie on a line"),
        ({"split": "block:5/2/0"}, "no such rule"),
        ({"split": "blocks:40/5/5"}, "leaves no images for test"),
        ({"split": "sequence", "fold": 2}, "there are 2 sequences"),
        ({"split": "official"}, "come without a split"),
    ],
)
def test_a_scale_or_split_that_cannot_be_is_refused_before_the_work(
    room: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strange.txt").write_text("elsewhere/a.jpg 1 0 0 0 0 0 0 500\n")
    line = [f"seq-01/frame-{i:06d}.jpg 1 0 0 0 {i} 0 0 500\n" for i in range(5)]
    Path("line.txt").write_text("".join(line))
    seen: set[str] = set()
    with pytest.raises(InputError, match=reason):
        label(
            [room / "seq-01", room / "seq-02"],
            "out",
            QUICK,
            progress=lambda done, total, text: seen.add(text),
            **options,
        )
    assert seen <= {"reading seq-01", "reading seq-02"}
    assert not Path("out").exists()


def test_a_turned_photo_keeps_its_place(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)}
    )
    (tmp_path / "walk").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "walk/a.jpg", exif=exif)
    photo = gather(
        [tmp_path / "walk"], tmp_path / "w.label", QUICK, lambda done, total, text: None
    ).photos[0]
    assert photo.size == (60, 80)
    with Image.open(photo.file) as image:
        assert image.size == (60, 80)
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    place = gps_place(photo.file)
    assert place is not None
    assert place[:2] == pytest.approx((52.5, 13.4))


@pytest.mark.parametrize("unit", ["m", "unit"])
def test_a_map_is_advised_first_and_no_metric_preset_without_metres(
    tiny_scene: Scene, unit: Literal["m", "unit"]
) -> None:
    advice = next_steps(replace(tiny_scene, unit=unit), Path("a place"))
    first, second = advice.splitlines()
    assert first == "Next: relocal map 'a place' --out 'a place-map'"
    assert "relocal train 'a place'" in second
    assert ("--preset proposed" in second) == (unit == "m")
