"""The page and the viewer in a real browser: Chromium without a screen, driven by Selenium."""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium", reason="pip install 'relocal[test]'")
pytest.importorskip("viser", reason="the viewer is an extra: pip install 'relocal[view]'")
pytest.importorskip("fastapi", reason="serving is an extra: pip install 'relocal[serve]'")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import served

from relocal.cli import main
from relocal.evaluation import evaluate
from relocal.scene import Scene
from relocal.server.app import create_app
from relocal.server.places import open_places
from relocal.viewer import Gathered, view

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver here: apt install chromium chromium-driver",
)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--enable-unsafe-swiftshader"),
)
ORANGE, PURPLE = (232, 130, 12), (168, 132, 255)
PATIENCE_S = 90  # drawing without a graphics card takes its time


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    profile = f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"
    for argument in (*QUIET, profile, "--window-size=1200,800"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def site(tiny_run: Path, tiny_map: Path) -> Iterator[str]:
    with served(create_app(open_places([tiny_run, tiny_map]))) as address:
        yield address


def waited(driver: Any, what: Callable[[Any], Any]) -> Any:
    return WebDriverWait(driver, PATIENCE_S, poll_frequency=0.3).until(what)


def text_of(driver: Any, part: str) -> str:
    return driver.find_element(By.ID, part).text


def seen(driver: Any, colour: tuple[int, int, int], element: Any = None) -> int:
    """How many pixels of what is shown have about a colour."""
    shot = (element or driver).screenshot_as_png if element else driver.get_screenshot_as_png()
    with Image.open(io.BytesIO(shot)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(-1) < 40).sum())


def complaints(driver: Any) -> list[str]:
    """What the browser says went wrong; that viser may not make code of texts is meant so."""
    lines = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    return [line for line in lines if "EvalError" not in line]


def ask(driver: Any, photo: Path, part: str = "file") -> None:
    driver.find_element(By.ID, part).send_keys(str(photo))
    waited(driver, lambda d: text_of(d, "status") not in ("", "Looking …"))


def numbers(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"-?\d+\.\d+", text)]


def test_the_page_says_what_localize_says(
    chromium: Any,
    site: str,
    tiny_run: Path,
    tiny_map: Path,
    tiny_scene: Scene,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo = tiny_scene.path(int(tiny_scene.indices("test")[2]))
    capsys.readouterr()
    words = ["--with", str(tiny_map), "--localizer", "hybrid", "--format", "json"]
    with pytest.raises(SystemExit):
        main(["localize", str(tiny_run), str(photo), *words])
    wanted = json.loads(capsys.readouterr().out)
    chromium.get(f"{site}/")
    waited(chromium, lambda d: text_of(d, "scene-name") == tiny_scene.name)
    ask(chromium, photo)
    assert text_of(chromium, "status") == "Found."
    assert np.allclose(numbers(text_of(chromium, "position")), wanted["position"], atol=6e-4)
    look = [row[2] for row in wanted["world_from_cam"][:3]]
    assert np.allclose(numbers(text_of(chromium, "look")), look, atol=6e-4)
    said = numbers(text_of(chromium, "sigma"))[0]  # in centimetres
    assert said == pytest.approx(100 * wanted["sigma_m"], rel=0.06)
    assert wanted["method"] in text_of(chromium, "method")
    assert str(wanted["inliers"]) in text_of(chromium, "method")
    assert text_of(chromium, "time").endswith(" ms")
    frame = chromium.find_element(By.ID, "viewer")
    waited(chromium, lambda d: seen(d, PURPLE, frame) > 50)  # the photo's camera in the place
    assert not complaints(chromium)


def test_what_is_no_photo_is_said(chromium: Any, site: str, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    chromium.get(f"{site}/")
    waited(chromium, lambda d: text_of(d, "scene-name") == "tiny")
    ask(chromium, tmp_path / "no.jpg")
    assert "no photo in JPEG, PNG, WEBP" in text_of(chromium, "status")
    assert not chromium.find_element(By.ID, "answer").is_displayed()


def test_the_page_fits_a_phone_and_goes_by_keyboard(chromium: Any, site: str) -> None:
    chromium.set_window_size(500, 900)  # as narrow as a window may be
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        chromium.get(f"{site}/")
        waited(chromium, lambda d: text_of(d, "scene-name") == "tiny")
        wide = "return [document.documentElement.scrollWidth, window.innerWidth]"
        needed, there = chromium.execute_script(wide)
        assert there == 360
        assert needed <= there
        reached: list[str] = []
        for _ in range(3):
            ActionChains(chromium).send_keys(Keys.TAB).perform()
            reached.append(chromium.switch_to.active_element.get_attribute("id"))
        assert reached[:2] == ["file", "camera"]
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.set_window_size(1200, 800)


def test_everything_on_the_page_has_a_name(chromium: Any, site: str) -> None:
    chromium.get(f"{site}/")
    tree = chromium.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    asked = {"button", "combobox", "textbox", "Iframe", "image"}
    for node in tree:
        if node.get("role", {}).get("value") in asked and not node.get("ignored"):
            assert node["name"]["value"], node
    assert chromium.find_element(By.ID, "status").get_attribute("aria-live") == "polite"
    assert chromium.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


def test_a_key_is_asked_for_and_used(chromium: Any, tiny_run: Path, tiny_scene: Scene) -> None:
    photo = tiny_scene.path(int(tiny_scene.indices("test")[0]))
    with served(create_app(open_places([tiny_run]), api_key="open sesame")) as address:
        chromium.get(f"{address}/")
        waited(chromium, lambda d: d.find_element(By.ID, "key").is_displayed())
        chromium.find_element(By.ID, "key").send_keys("open sesame" + Keys.ENTER)
        waited(chromium, lambda d: text_of(d, "scene-name") == tiny_scene.name)
        ask(chromium, photo)
        assert text_of(chromium, "status") == "Found."
        frame = chromium.find_element(By.ID, "viewer")
        waited(chromium, lambda d: seen(d, PURPLE, frame) > 50)


def test_the_viewer_shows_truth_answers_and_photos(
    chromium: Any, tiny_map: Path, tiny_scene: Scene
) -> None:
    gathered = Gathered(evaluate(tiny_map, tiny_scene), tiny_scene)
    server = view(gathered, port=0)
    try:
        chromium.get(f"http://127.0.0.1:{server.get_port()}")
        waited(chromium, lambda d: tiny_scene.name in d.find_element(By.TAG_NAME, "body").text)
        body = chromium.find_element(By.TAG_NAME, "body").text
        for words in ("Answers of", "Best to worst", "Frame", gathered.report.images[0]):
            assert words in body
        waited(chromium, lambda d: min(seen(d, ORANGE), seen(d, PURPLE)) > 50)
        pictures = chromium.find_elements(By.TAG_NAME, "img")
        assert len(pictures) >= 2  # the photos, and how the errors are spread
    finally:
        server.stop()
