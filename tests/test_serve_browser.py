"""The labelling page in a real browser: Debian's chromium without a window, driven by selenium."""

import csv
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import svp
from svp.labels import LabelStore

pytest.importorskip("selenium")
pytest.importorskip("starlette")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import BROWSER, DRIVER, Page, start
from tests.serving import FAST, Server, served

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="there is no browser: apt-get install chromium chromium-driver"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = start(1200, 850)
    yield driver
    driver.quit()


def quiet(browser: Any) -> list[str]:
    """What the browser complained of: a script that it refused, an error of ours."""
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Reviews by somebody who means harm, and others."""
    harm = [
        "<script>window.harm = 1</script>",
        "<img src=x onerror='window.harm = 1'>",
        "</div><svg onload=window.harm=1>",
        "{{ 7 * 7 }} {% raw %} ${window.harm = 1}",
        "<iframe srcdoc='<script>parent.harm = 1</script>'></iframe>",
        "<style>* { display: none }</style><base href='http://evil.example/'>",
        "<a href='javascript:window.harm=1' autofocus onfocus='window.harm=1'>good</a>",
        "&lt;b&gt;not bold&lt;/b&gt; \u202egnirts",
    ]
    return harm + [f"a {'good' if i % 2 else 'bad'} book, number {i}\nand more" for i in range(12)]


@pytest.fixture(scope="module")
def server(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """20 texts, to be told apart as classes of which one is called like markup."""
    folder = tmp_path_factory.mktemp("texts")
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    models = ["--proxy.model", "hashed-linear", "--target.model", "hashed-linear"]
    with served(
        folder / "s",
        "--data",
        str(folder / "t.csv"),
        "--classes",
        "good,<b>bad</b>",
        "-n",
        "20",
        "--port",
        "0",
        *models,
    ) as running:
        yield running


def said_in(folder: str | Path) -> list[tuple[int, int | None, str, str]]:
    with LabelStore.open(Path(folder) / "labels.sqlite") as store:
        return [(a.id, a.label, a.who, a.kind) for a in store.said()]


def test_texts_are_shown_as_they_are_and_run_nothing(browser: Any, server: Server, texts: list[str]) -> None:
    page = Page(browser, server.link, "ann")
    seen, key = [], page.key()
    for _ in texts:
        seen.append(page.look()[2])
        assert browser.execute_script("return document.querySelectorAll('#text *, iframe, base, style').length") == 0
        key = page.press("s", key)
    page.until(lambda: "nothing is left" in page.find("pause").text)
    assert page.find("next").get_property("textContent") == ""
    assert sorted(seen) == sorted(texts)
    assert browser.execute_script("return window.harm") is None
    names = [each.get_property("textContent") for each in browser.find_elements(By.CSS_SELECTOR, ".answer .name")]
    assert names == ["good", "<b>bad</b>"]
    for _ in texts:
        key = page.press("z", key)
    assert [kind for *_, kind in said_in(server.facts["folder"])] == []
    assert not quiet(browser)
    browser.execute_script("localStorage.clear()")


def test_two_people_at_once_have_their_own_questions(browser: Any, server: Server) -> None:
    """Two tabs of two names of this machine share no storage and no cookie: to the server they are two browsers."""
    ann = Page(browser, server.link, "ann")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    bob = Page(browser, server.link.replace("127.0.0.1", "localhost"), "bob")
    second = browser.current_window_handle
    told: dict[str, list[str]] = {"ann": [], "bob": []}
    for _ in range(5):
        for page, handle in ((ann, first), (bob, second)):
            browser.switch_to.window(handle)
            told[page.who].append(page.key())
            page.press("1" if page.who == "ann" else "2", told[page.who][-1])
    assert not set(told["ann"]) & set(told["bob"])
    stored = {(id_, label, who) for id_, label, who, _ in said_in(server.facts["folder"])}
    assert stored == {(int(key), label, who) for label, who in enumerate(("ann", "bob")) for key in told[who]}
    assert bob.labelled() == 10
    assert "ann, bob" in bob.find("beside").text
    browser.close()
    browser.switch_to.window(first)


def test_keys_mean_nothing_in_a_field_and_everything_can_be_reached_by_tab(browser: Any, server: Server) -> None:
    page = Page(browser, server.link, "ann")
    n = len(said_in(server.facts["folder"]))
    page.find("change").click()
    page.keys(Keys.CONTROL, "a")
    page.keys("snuz12", Keys.ENTER)
    page.until(page.is_asked)
    assert page.find("who").text == "snuz12"
    reached = []
    browser.execute_script("document.activeElement.blur(); document.querySelector('.jump').focus()")
    for _ in range(10):
        page.keys(Keys.TAB)
        reached.append(browser.switch_to.active_element.accessible_name)
    assert all(reached)
    assert [name for name in reached if name in ("good", "<b>bad</b>", "Unsure", "None of these", "Skip", "Undo")] == [
        "good", "<b>bad</b>", "Unsure", "None of these", "Skip", "Undo",
    ]  # fmt: skip
    about = page.key()
    browser.execute_script("document.querySelector('.answer').focus()")
    page.keys(Keys.ENTER)
    page.until(lambda: page.key() != about)
    assert browser.switch_to.active_element.accessible_name == "good"  # the focus stays where it was
    assert page.find("said").get_property("textContent").startswith("Stored: good")
    page.find("use-keys").click()
    browser.execute_script("document.activeElement.blur()")
    about = page.key()
    page.keys("1", "2", "s")
    page.find("use-keys").click()
    assert page.key() == about
    assert len(said_in(server.facts["folder"])) == n + 1
    for live in ("said", "learning", "trouble", "pause"):
        assert page.find(live).get_attribute("role") in ("status", "alert")
    assert not quiet(browser)


def test_on_a_phone_nothing_sticks_out_and_buttons_fit_a_thumb(browser: Any, server: Server) -> None:
    phone = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        page = Page(browser, server.link, "ann")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        for button in browser.find_elements(By.CSS_SELECTOR, ".answer, #others button"):
            box = button.rect
            assert box["height"] >= 44
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            assert box["y"] + box["height"] <= 700  # example and answers are seen at once
        about = page.key()
        browser.find_element(By.CSS_SELECTOR, ".answer").click()
        page.until(lambda: page.key() != about)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_of_another_site_can_say_nothing(browser: Any, server: Server) -> None:
    """It stands at another port of the same address, so that the browser sends our cookie along."""
    page = Page(browser, server.link, "ann")
    stored, about = said_in(server.facts["folder"]), page.browser.execute_script("return card.id")
    said = json.dumps({"who": "eve", "id": about, "said": 1})
    forgery = f"""<form method=post enctype=text/plain action={server.origin}/answer target=frame>
    <input name='{said[:-1]}, "x": "' value='"}}'></form><iframe name=frame></iframe><script>
    document.forms[0].submit();
    const send = (headers) => fetch("{server.origin}/answer", {{
      method: "POST", credentials: "include", headers, body: {json.dumps(said)}, mode: headers ? "cors" : "no-cors" }});
    Promise.allSettled([send(undefined), send({{"Content-Type": "application/json", "X-SVP-Form": "0"}}),
      fetch("{server.origin}/progress", {{credentials: "include"}}).then((answer) => answer.text())])
      .then((all) => {{ document.title = all.map((one) => one.status + ":" + (one.value && one.value.type)).join(" "); }});
    </script>"""

    class Forger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(forgery.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forger) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        browser.get(f"http://127.0.0.1:{other.server_address[1]}/")
        page.until(lambda: ":" in browser.title)
        title = browser.title
        other.shutdown()
    assert title == "rejected:undefined " * 2 + "rejected:undefined"  # sent in vain, not sent at all, not to be read
    assert said_in(server.facts["folder"]) == stored
    browser.get_log("browser")


def test_a_wrong_token_opens_nothing(browser: Any, server: Server) -> None:
    browser.delete_all_cookies()
    for path in (f"/?token={'x' * 43}", "/", "/progress", "/image/any/0"):
        browser.get(server.origin + path)
        assert "that svp printed" in browser.find_element(By.TAG_NAME, "body").text
        assert not browser.find_elements(By.ID, "work")
    browser.get_log("browser")


def colour(page: Page) -> list[int]:
    """Red, green and blue of the middle of the photo that is shown."""
    drawn: list[int] = page.browser.execute_script(
        "const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;"
        "const pen = canvas.getContext('2d'); pen.drawImage(document.getElementById('image'), 0, 0, 1, 1);"
        "return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);"
    )
    return drawn


def test_photos_are_those_of_this_session_and_of_now(browser: Any, tmp_path: Path) -> None:
    """Another session at the same port counts its examples from 0 too, and browsers keep what they were shown."""
    shades = {"red": [255, 0, 0], "blue": [0, 0, 255]}
    port = "0"
    for name, shade in shades.items():
        (tmp_path / name).mkdir()
        for i in range(12):
            Image.new("RGB", (80, 80), tuple(shade)).save(tmp_path / name / f"{name}{i}.png")
        data = ["--data", str(tmp_path / name), "--classes", "cat,dog", "--image-size", "8", "-n", "12", *FAST]
        with served(tmp_path / f"s-{name}", *data, "--port", port) as server:
            port = server.origin.rpartition(":")[2]
            page = Page(browser, server.link, "ann")
            seen = [page.key()]
            for _ in range(4):  # the later ones were fetched ahead
                assert seen[-1].startswith(name)
                assert colour(page) == shade
                seen.append(page.press("1", seen[-1]))
            Image.new("RGB", (80, 80), "lime").save(tmp_path / name / seen[-2])
            page.press("z", seen[-1])
            assert page.key() == seen[-2]
            assert colour(page) == [0, 255, 0]
    browser.get_log("browser")


def test_no_key_means_anything_before_the_photo_is_seen(browser: Any, server: Server) -> None:
    page = Page(browser, server.link, "ann")
    waits = browser.execute_script(
        "card = null; busy = false; lay({id: 0, key: 'a.png', image: '/image/any/99999', text: null, origin: ''});"
        "return [busy, document.querySelector('.answer').getAttribute('aria-disabled')];"
    )
    assert waits == [True, "true"]
    page.until(lambda: "cannot be shown" in page.find("pause").text and page.is_asked())
    browser.get_log("browser")


def test_every_key_says_what_it_means_and_the_model_learns_behind_the_page(browser: Any, tmp_path: Path) -> None:
    digits = svp.load_dataset("digits")
    assert digits.labels is not None
    truth = dict(zip(map(str, digits.ids), digits.labels.tolist(), strict=True))
    with served(tmp_path / "s", "--data", "digits", *FAST, "-n", "12", "--port", "0") as server:
        page = Page(browser, server.link, "ann")
        asked: list[str] = [page.key()]
        for key, kind in (("u", "unsure"), ("n", "none"), ("s", "skip")):
            asked.append(page.press(key, asked[-1]))
            assert {str(id_): kind for id_, _, _, kind in said_in(tmp_path / "s")}[asked[-2]] == kind
        assert page.press(Keys.BACKSPACE, asked[-1]) == asked[-2]  # the skipped one comes back
        assert len(said_in(tmp_path / "s")) == 2
        learned = "It has learned from"
        for _ in range(60):
            about = page.key()
            page.press(str(truth[about]), about)
            if page.labelled() == 12:  # one question is answered: the page goes on while the model learns
                page.until(lambda: learned in page.find("learning").text)
            if "the model had thought" in page.find("said").get_property("textContent"):
                break
        else:
            raise AssertionError("no guess was shown")
        assert page.labelled() > 12
    browser.get_log("browser")


def test_fifty_digits_by_keys_with_the_server_killed_in_between(browser: Any, tmp_path: Path) -> None:
    """What was acknowledged is there, once; the answer on its way is said again; in the end there is a model."""
    arguments = ["--data", "digits", *FAST, "-n", "20"]
    labels = svp.load_dataset("digits")
    assert labels.labels is not None
    truth = dict(zip(labels.ids.tolist(), labels.labels.tolist(), strict=True))
    told: dict[int, int] = {}

    def label(page: Page, until: int) -> None:
        key = page.key()
        while len(told) < until:
            if not key:
                page.until(page.is_asked)
                key = page.key()
            about = int(key)
            assert about not in told
            key = page.press(str(truth[about]), key)
            told[about] = truth[about]

    first = Server(tmp_path / "s", *arguments, "--port", "0")
    port = first.link.partition("/?")[0].rpartition(":")[2]
    page = Page(browser, first.link, "ann")
    label(page, 27)
    first.kill()
    assert {id_: said for id_, said, *_ in said_in(tmp_path / "s")} == told
    page.keys("0")  # to nobody
    page.until(lambda: "tried again" in page.find("trouble").text)
    with served(tmp_path / "s", *arguments, "--port", port) as second:
        page.until(lambda: "Open the link" in page.find("trouble").text)
        page = Page(browser, second.link, "ann")
        assert page.labelled() == 27
        label(page, 50)
        assert page.labelled() == 50
        stored = said_in(tmp_path / "s")
        assert {id_: said for id_, said, *_ in stored} == told
        assert len(stored) == 50
        page.until(lambda: "learning" not in page.find("learning").text)
        page.find("finish").click()
        page.until(lambda: "labelled.csv" in page.find("result").text)
        assert "from 50 labels" in page.find("result").text
    assert len((tmp_path / "s" / "labelled.csv").read_text().splitlines()) == 51
    browser.get_log("browser")
