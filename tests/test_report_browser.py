"""The report in a real browser, without a network: Debian's chromium without a window, driven by selenium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import svp

pytest.importorskip("selenium")
pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browsing import BROWSER, DRIVER, start

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="there is no browser: apt-get install chromium chromium-driver"
)
LOGISTIC = {"model": "logistic", "options": {"max_iter": 200}}
COMMON = {"dataset": "tiny", "proxy": {"model": "logistic", "options": {"C": 0.01}}, "target": LOGISTIC}


def dataset() -> svp.Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.normal(60 + 50 * labels[:, None, None, None], 60, (90, 8, 8, 1)).clip(0, 255).astype(np.uint8)
    # A name of a class that would be a script where it is taken for one.
    classes = ("ant", "bee", "<img src=x onerror='window.harm = 1'>")
    return svp.Dataset.from_arrays(
        images[:60], labels[:60], classes=classes, test=(images[60:], labels[60:]), name="tiny"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = start(1200, 850)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=["coreset", "active"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, data = tmp_path_factory.mktemp("report") / "run", dataset()
    if request.param == "coreset":
        config = {**COMMON, "method": "margin", "budget": 30, "control": ["random", "full"], "seeds": 2}
        return svp.coreset(svp.CoresetConfig.make(config), data, out=out).report(data)
    config = {**COMMON, "labelled": [12, 20, 28], "control": ["random", "target"], "seeds": 2}
    return svp.active(svp.ActiveConfig.make(config), data, out=out).report(data)


@pytest.mark.parametrize("width", [1200, 400])
def test_all_is_drawn_without_a_network_and_nothing_is_run(browser: Any, page: Path, width: int) -> None:
    browser.set_window_size(width, 850)
    browser.get(page.as_uri())
    drawings = browser.find_elements(By.CSS_SELECTOR, ".drawing")
    assert len(drawings) >= 2
    WebDriverWait(browser, 60).until(
        lambda _: all(drawing.find_elements(By.CSS_SELECTOR, "svg, canvas") for drawing in drawings)
    )
    for drawing in drawings:
        drawn = drawing.find_element(By.CSS_SELECTOR, "svg, canvas").size
        assert min(drawn.values()) > 50, drawing.get_attribute("id")
    pictures = browser.execute_script(
        "return [...document.querySelectorAll('.pictures img')].map(i => [i.complete, i.naturalWidth])"
    )
    assert pictures
    assert all(complete and wide > 0 for complete, wide in pictures)
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "Verdict" in text
    assert "<img src=x onerror=" in text
    # A page no wider than the window: what is wide scrolls by itself.
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.execute_script("return window.harm === undefined")
    assert [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []
