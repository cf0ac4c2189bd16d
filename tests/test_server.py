"""The HTTP interface: the same answers as the library's, and a reason for every refusal."""

import asyncio
import io
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="serving is an extra: pip install 'relocal[serve]'")

from fastapi.testclient import TestClient  # after the check above

from relocal.camera import Camera
from relocal.cli import main
from relocal.errors import InputError
from relocal.localizers import Regressor
from relocal.scene import Scene
from relocal.server.app import create_app
from relocal.server.batching import Batcher, QueueFullError
from relocal.server.config import ServeConfig
from relocal.server.places import Place, open_places
from relocal.types import Estimate


@pytest.fixture(scope="module")
def place(tiny_run: Path) -> Place:
    return next(iter(open_places([tiny_run]).values()))


@pytest.fixture
def client(place: Place) -> Iterator[TestClient]:
    with TestClient(create_app({place.name: place})) as client:
        yield client


def photo(scene: Scene, i: int = 0) -> bytes:
    return scene.path(int(scene.indices("test")[i])).read_bytes()


def encoded(form: str, size: tuple[int, int] = (160, 120)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, "grey").save(content, form)
    return content.getvalue()


JPEG = {"Content-Type": "image/jpeg"}


def test_it_answers_as_the_library_does(
    client: TestClient, place: Place, tiny_scene: Scene
) -> None:
    content = photo(tiny_scene)
    wanted = place.localizer.localize(content)
    assert wanted is not None
    for answer in (
        client.post("/v1/localize", content=content, headers=JPEG),
        client.post("/v1/localize", files={"photo": ("../../etc/passwd", content)}),
    ):
        assert answer.status_code == 200
        said = answer.json()
        assert said["located"]
        assert np.allclose(said["position"], wanted.pose.position.tolist(), atol=1e-4)
        assert np.allclose(said["quaternion"], wanted.pose.quaternion.tolist(), atol=1e-4)
        both = np.array(said["world_from_cam"]) @ np.array(said["cam_from_world"])
        assert np.allclose(both, np.eye(4), atol=1e-9)
        assert (said["unit"], said["method"], said["scene"]) == ("m", "posenet", tiny_scene.name)
        assert said["time_ms"] > 0
        assert [warning["code"] for warning in said["warnings"]] == ["camera-assumed"]
        assert "no EXIF" in said["warnings"][0]["text"]


def test_a_camera_may_be_given(client: TestClient, place: Place, tiny_scene: Scene) -> None:
    camera = Camera.pinhole(160, 120, 190.0, 190.0, 80.0, 60.0)
    wanted = place.localizer.localize(photo(tiny_scene), camera)
    assert wanted is not None
    words = {"camera": "PINHOLE,160,120,190,190,80,60"}
    said = client.post("/v1/localize", content=photo(tiny_scene), headers=JPEG, params=words).json()
    assert np.allclose(said["position"], wanted.pose.position.tolist(), atol=1e-4)
    assert said["warnings"] == []
    wrong = {"camera": "PINHOLE,160,120"}
    answer = client.post("/v1/localize", content=photo(tiny_scene), headers=JPEG, params=wrong)
    assert answer.status_code == 422
    assert "camera" in answer.json()["detail"]


def test_several_photos_are_answered_each_by_itself(client: TestClient, tiny_scene: Scene) -> None:
    contents = [photo(tiny_scene, 0), b"no photo", photo(tiny_scene, 3), encoded("GIF")]
    files = [("photo", (f"{i}.jpg", content)) for i, content in enumerate(contents)]
    answers = client.post("/v1/localize/batch", files=files).json()["answers"]
    assert [answer.get("status") for answer in answers] == [None, 415, None, 415]
    alone = client.post("/v1/localize", content=contents[2], headers=JPEG).json()
    assert np.allclose(answers[2]["position"], alone["position"], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "kind", "status", "reason"),
    [
        (b"", "image/jpeg", 400, "empty"),
        (b"no photo", "image/jpeg", 415, "no photo in JPEG, PNG, WEBP"),
        (encoded("GIF"), "image/png", 415, "no photo"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png", 415, "no photo"),
        (encoded("JPEG")[:-60], "image/jpeg", 422, "damaged"),
        (encoded("PNG", (8, 8)), "image/png", 422, "too few"),
        (encoded("JPEG"), "text/plain", 415, "Content-Type"),
        (encoded("JPEG"), "", 415, "Content-Type: none"),
        (encoded("JPEG"), "multipart/form-data", 400, ""),
    ],
)
def test_what_is_no_photo_is_refused_with_a_reason(
    client: TestClient, content: bytes, kind: str, status: int, reason: str
) -> None:
    answer = client.post("/v1/localize", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert reason in answer.json()["detail"]
    assert client.get("/healthz").json() == {"status": "ok"}


def test_a_picture_of_a_billion_pixels_is_refused_by_its_header(client: TestClient) -> None:
    small = encoded("PNG", (64, 64))
    width = (30_000).to_bytes(4, "big")
    header = b"IHDR" + width + width + small[24:29]
    bomb = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    answer = client.post("/v1/localize", content=bomb, headers={"Content-Type": "image/png"})
    assert answer.status_code == 422
    assert "megapixels" in answer.json()["detail"]


def test_a_large_body_is_refused_whatever_it_says(place: Place) -> None:
    with TestClient(create_app({place.name: place}, ServeConfig(max_mb=0.1))) as client:
        large = b"x" * 200_000
        assert client.post("/v1/localize", content=large, headers=JPEG).status_code == 413

        def drops() -> Iterator[bytes]:  # sent in chunks, without a length
            yield from (large[i : i + 1000] for i in range(0, len(large), 1000))

        assert client.post("/v1/localize", content=drops(), headers=JPEG).status_code == 413
        forms = {"photo": ("a.jpg", large)}
        assert client.post("/v1/localize", files=forms).status_code == 413
        assert client.get("/readyz").status_code == 200


def test_who_has_no_key_is_refused(place: Place, tiny_scene: Scene) -> None:
    with TestClient(create_app({place.name: place}, api_key="open sesame")) as client:
        keys = {"": 401, "o": 401, "open": 401, "open sesame2": 401, "open sesame": 200}
        for key, status in keys.items():
            headers = {**JPEG, "X-API-Key": key}
            answer = client.post("/v1/localize", content=photo(tiny_scene), headers=headers)
            assert answer.status_code == status
        assert client.get("/v1/scene").status_code == 401
        assert client.get("/healthz").status_code == 200


def test_several_scenes_have_names(place: Place, tiny_scene: Scene) -> None:
    other = replace(place, name="elsewhere")
    with TestClient(create_app({place.name: place, "elsewhere": other})) as client:
        ask: Any = {"content": photo(tiny_scene), "headers": JPEG}
        assert client.post("/v1/localize", **ask).status_code == 404
        answer = client.post("/v1/localize", params={"scene": "elsewhere"}, **ask)
        assert answer.json()["scene"] == "elsewhere"
        about = client.get("/v1/scene", params={"scene": "elsewhere"}).json()
        assert set(about["scenes"]) == {place.name, "elsewhere"}


def test_a_map_tells_its_points(
    tiny_run: Path, tiny_map: Path, tiny_scene: Scene, tmp_path: Path
) -> None:
    places = open_places([tiny_run, tiny_map])
    assert [one.localizer.method for one in places.values()] == ["hybrid"]
    with TestClient(create_app(places)) as client:
        about = client.get("/v1/scene").json()
        assert len(about["points"][0]) == 6
        assert len(about["training_positions"]) == 24
        said = client.post("/v1/localize", content=photo(tiny_scene), headers=JPEG).json()
        assert said["method"] in ("hybrid", "structure")
        assert said["inliers"] >= 12
    with pytest.raises(InputError, match="2 folders are of this scene"):
        open_places([tiny_run, shutil.copytree(tiny_run, tmp_path / "again")])


def test_a_picture_of_too_many_pixels_is_refused(place: Place) -> None:
    with TestClient(create_app({place.name: place}, ServeConfig(max_megapixels=0.01))) as client:
        answer = client.post("/v1/localize", content=encoded("PNG"), headers=JPEG)
        assert answer.status_code == 422
        assert "0.01" in answer.json()["detail"]


def test_a_batch_is_answered_at_once(tiny_run: Path, tiny_scene: Scene) -> None:
    localizer = Counting(tiny_run)
    with TestClient(create_app({"tiny": Place("tiny", "m", localizer)})) as client:
        files = [("photo", (f"{i}.jpg", photo(tiny_scene, i))) for i in range(8)]
        answer = client.post("/v1/localize/batch", files=files)
        assert all(one["located"] for one in answer.json()["answers"])
    assert max(localizer.sizes) > 1


def test_metrics_count_what_was_asked(client: TestClient, tiny_scene: Scene) -> None:
    for _ in range(3):
        client.post("/v1/localize", content=photo(tiny_scene), headers=JPEG)
    client.post("/v1/localize", content=b"", headers=JPEG)
    client.get("/no/such/page")
    text = client.get("/metrics").text
    assert 'relocal_requests_total{path="/v1/localize",status="200"} 3.0' in text
    assert 'relocal_requests_total{path="/v1/localize",status="400"} 1.0' in text
    assert 'relocal_requests_total{path="other",status="404"} 1.0' in text
    assert f'relocal_photos_total{{scene="{tiny_scene.name}"}} 4.0' in text  # one to warm up


class Counting(Regressor):
    """A regressor that says how many photos it was asked about at once."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.sizes: list[int] = []

    def answer(self, views: torch.Tensor) -> list[Estimate]:
        self.sizes.append(len(views))
        return super().answer(views)


def test_photos_that_wait_are_asked_about_together(tiny_run: Path, tiny_scene: Scene) -> None:
    localizer = Counting(tiny_run)
    contents = [photo(tiny_scene, i) for i in range(8)]
    alone = [Regressor(tiny_run).localize(content) for content in contents]

    async def all_at_once() -> list[Any]:
        batcher = Batcher(localizer, 4, 20)
        batcher.start()
        asked = (batcher.ask(content, None) for content in (*contents, b"no photo"))
        found = await asyncio.gather(*asked, return_exceptions=True)
        await batcher.stop()
        return list(found)

    found = asyncio.run(all_at_once())
    assert max(localizer.sizes) == 4
    assert sum(localizer.sizes) == 8
    assert isinstance(found.pop(), InputError)
    for one, other in zip(found, alone, strict=True):
        assert torch.allclose(one.pose.position, other.pose.position, atol=1e-4)


def test_too_many_are_sent_away_and_those_who_wait_are_answered(
    tiny_run: Path, tiny_scene: Scene
) -> None:
    async def crowd() -> list[Any]:
        batcher = Batcher(Regressor(tiny_run), 1, 3)
        batcher.start()
        asked = [asyncio.create_task(batcher.ask(photo(tiny_scene), None)) for _ in range(9)]
        await asyncio.sleep(0)
        await batcher.stop()  # answers what waits
        return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(crowd())
    away = [one for one in found if isinstance(one, QueueFullError)]
    assert 0 < len(away) < 9
    assert all(isinstance(one, Estimate) for one in found if one not in away)


def test_a_full_queue_says_when_to_come_back(
    place: Place, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app({place.name: place})) as client:

        async def full(self: Batcher, photo: bytes, camera: Any) -> None:
            raise QueueFullError

        monkeypatch.setattr(Batcher, "ask", full)
        answer = client.post("/v1/localize", content=photo(tiny_scene), headers=JPEG)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
        monkeypatch.undo()


def test_a_batch_says_which_photos_come_too_many(
    place: Place, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app({place.name: place})) as client:
        plain, full = Batcher.ask, {photo(tiny_scene, 1)}

        async def ask(self: Batcher, content: bytes, camera: Any) -> Any:
            if content in full:
                raise QueueFullError
            return await plain(self, content, camera)

        monkeypatch.setattr(Batcher, "ask", ask)
        files = [("photo", (f"{i}.jpg", photo(tiny_scene, i))) for i in range(3)]
        answers = client.post("/v1/localize/batch", files=files).json()["answers"]
        assert [one.get("status") for one in answers] == [None, 429, None]
        full |= {photo(tiny_scene, i) for i in range(3)}
        answer = client.post("/v1/localize/batch", files=files)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        monkeypatch.undo()


def test_a_localizer_that_breaks_is_a_500_and_the_server_goes_on(
    place: Place, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app({place.name: place})
    with TestClient(app, raise_server_exceptions=False) as client:
        monkeypatch.setattr(place.localizer, "answer", lambda views: 1 / 0)
        ask: Any = {"content": photo(tiny_scene), "headers": JPEG}
        assert client.post("/v1/localize", **ask).status_code == 500
        monkeypatch.undo()
        assert client.post("/v1/localize", **ask).status_code == 200


def test_it_describes_itself(client: TestClient) -> None:
    about = client.get("/openapi.json").json()
    paths = {
        f"/v1/{name}" for name in ("localize", "localize/batch", "scene", "scenes", "scene/view")
    }
    paths |= {"/healthz", "/readyz", "/metrics"}
    assert set(about["paths"]) == paths
    ask = about["paths"]["/v1/localize"]["post"]
    assert {"image/jpeg", "multipart/form-data"} <= ask["requestBody"]["content"].keys()
    assert {"200", "400", "413", "415", "422", "429"} <= ask["responses"].keys()
    assert json.dumps(about).count('"examples"') > 5


def test_bad_options_are_refused(place: Place, tmp_path: Path) -> None:
    refused: list[dict[str, Any]] = [{"batch": 0}, {"waiting": 0}, {"max_mb": 0.0}]
    for wrong in refused:
        with pytest.raises(InputError, match="--"):
            ServeConfig(**wrong)
    with pytest.raises(InputError, match="at least one run"):
        create_app({})
    with pytest.raises(InputError, match="how sure its answers are is not known"):
        create_app({place.name: place}, ServeConfig(reject=True))
    with pytest.raises(SystemExit) as end:
        main(["serve", str(tmp_path / "none")])
    assert end.value.code == 2


def test_a_wrong_option_is_said_in_a_sentence(client: TestClient) -> None:
    wrong = {"position": ["1", "x", "3"], "sigma": "-1"}
    answer = client.get("/v1/scene/view", params=wrong)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert "position.1: " in detail
    assert "sigma: " in detail
    half = client.get("/v1/scene/view", params={"position": ["1", "2", "3"]})
    assert half.status_code == 422
    assert "belong together" in half.json()["detail"]


def test_answers_in_a_map_of_the_earth_can_be_viewed(client: TestClient) -> None:
    there = {"position": ["389212.4", "5819731.8", "54.1"], "quaternion": ["1", "0", "0", "0"]}
    assert client.get("/v1/scene/view", params=there).status_code != 422
    there["position"][1] = "1e13"
    assert client.get("/v1/scene/view", params=there).status_code == 422


def test_the_page_and_its_viewer_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert "Where was this photo taken?" in page.text
    for part in ("/page.css", "/page.js", "/viewer/", "/v1/scene/view"):
        answer = client.get(part)
        assert answer.status_code == 200
        assert len(answer.content) > 500
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_a_link_to_the_viewer_plays_nothing_of_strangers(client: TestClient) -> None:
    """Recordings may hold scripts: only what the page made itself, as a blob, is played."""
    assert client.get("/viewer/?darkMode&playbackPath=blob:http://testserver/1").status_code == 200
    for address in ("data:application/octet-stream;base64,AAAA", "/v1/scene/view", "//evil.org/a"):
        for query in ({"playbackPath": address}, {"playbackPath": ["blob:x", address]}):
            assert client.get("/viewer/", params=query).status_code == 400
    policy = client.get("/viewer/").headers["Content-Security-Policy"]
    assert "'unsafe-eval'" not in policy
    assert "'self'" not in policy.replace("frame-ancestors 'self'", "")


def test_without_a_viewer_the_page_still_answers(
    client: TestClient, tiny_scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("relocal.server.page", "relocal.server.routes"):
        monkeypatch.setattr(f"{module}.viewer_page", lambda: None)
    for part in ("/viewer/", "/v1/scene/view"):
        answer = client.get(part)
        assert answer.status_code == 404
        assert "relocal[view]" in answer.json()["detail"]
    answer = client.post("/v1/localize", content=photo(tiny_scene), headers=JPEG)
    assert answer.json()["located"]
