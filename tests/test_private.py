"""Published scenes name nothing of the computer that made them."""

from dataclasses import replace
from pathlib import Path

import pytest

from relocal.notices import NOTICES, Notice
from relocal.publishing import PublishConfig, publish
from relocal.publishing.private import without_local_paths
from relocal.scene import Scene, load_scene, save_scene
from relocal.scene.account import NO_FILE, Account, Tally


def test_a_published_scene_says_nothing_of_the_computer_that_made_it(
    tiny_scene: Scene, tmp_path: Path
) -> None:
    gone = ["/home/konrad zuse/x/1.jpg", "C:\\Users\\zuse\\2.jpg", "../zuse/3.jpg", "a/4.jpg"]
    tally = Tally.of(len(tiny_scene) + 4, len(tiny_scene), {NO_FILE: gone})
    notices = (
        Notice("several-models", "/home/konrad zuse/x: holds 2 models, sparse/1 (3)"),
        Notice("intrinsics-assumed", r"of C:\Users\zuse\x the file is missing"),
        Notice("poses-identical", "3 of 20 images have the very pose of another (seq/1.png)"),
    )
    provenance = {**tiny_scene.provenance, "missing_images": gone, "labels": "/home/zuse/l.txt"}
    provenance["remark"] = "made of /home/zuse/x"
    account = Account(images=tally, notices=notices)
    save_scene(replace(tiny_scene, account=account, provenance=provenance), tmp_path / "scene")
    config = PublishConfig(license="CC-BY-4.0", author=("B. Doe",), keep_metadata=True)
    out = publish(tmp_path / "scene", tmp_path / "out", config)
    assert not [
        file.name
        for file in out.rglob("*")
        if file.suffix in (".json", ".md", ".txt", ".csv") and b"zuse" in file.read_bytes()
    ]
    scene = load_scene(out)
    assert scene.account is not None
    assert scene.account.images.examples == {NO_FILE: ("1.jpg", "2.jpg", "3.jpg", "a/4.jpg")}
    assert scene.provenance["labels"] == "l.txt"
    assert [notice.code for notice in scene.account.notices] == [n.code for n in notices]
    assert scene.account.notices[0].text == NOTICES["several-models"]
    assert scene.account.notices[2] == notices[2]


@pytest.mark.parametrize(
    "text",
    ["a/1.jpg", "1 / 2", "f = 525 px, 3/4", "see https://x.org/a", "seq-01: 3", "a, b/c", "10:30"],
)
def test_what_is_no_path_of_a_computer_stays(text: str) -> None:
    assert without_local_paths({"a": [text], "b": {"code": "other", "text": text}}) == {
        "a": [text],
        "b": {"code": "other", "text": text},
    }
