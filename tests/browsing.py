"""A person before the labelling page: Debian's chromium without a window, driven by selenium."""

import shutil
from collections.abc import Callable
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def start(width: int, height: int) -> Any:
    """A browser with a window of this size; `quit` ends it."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={width},{height}"):
        options.add_argument(f"--{word}")  # root has no sandbox, a container little shared memory
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


class Page:
    """What a person sees and does in one tab."""

    def __init__(self, browser: Any, link: str, who: str) -> None:
        self.browser, self.who = browser, who
        browser.get(link)
        self.until(lambda: "token" not in browser.current_url)
        self.until(lambda: self.find("welcome").is_displayed() or self.find("work").is_displayed())
        if self.find("welcome").is_displayed():
            self.until(lambda: browser.switch_to.active_element.get_attribute("id") == "name")
            self.keys(Keys.CONTROL, "a")
            self.keys(who, Keys.ENTER)
        self.until(self.is_asked)

    def find(self, id_: str) -> Any:
        return self.browser.find_element(By.ID, id_)

    def until(self, true: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, 120, poll_frequency=0.03).until(lambda _: true())

    def keys(self, *keys: str) -> None:
        """To whatever has the focus; a name of a key that is held goes before the others."""
        actions = webdriver.ActionChains(self.browser, duration=0)
        if keys[0] == Keys.CONTROL:
            actions.key_down(Keys.CONTROL).send_keys(*keys[1:]).key_up(Keys.CONTROL)
        else:
            actions.send_keys(*keys)
        actions.perform()

    def look(self) -> tuple[str, bool, str]:
        """What is shown, in one go: the key of the example, whether buttons can be pressed, the text."""
        key, disabled, text = self.browser.execute_script(
            "return [document.getElementById('key').textContent, "
            "document.getElementById('undo').getAttribute('aria-disabled'), document.getElementById('text').textContent]"
        )
        return key, disabled == "false", text

    def key(self) -> str:
        return self.look()[0]

    def is_asked(self) -> bool:
        """Is there an example to answer, and nothing on its way?"""
        key, ready, _ = self.look()
        return bool(key) and ready

    def press(self, key: str, about: str | None = None) -> str:
        """A key that changes what is shown; returns what that is. Comes back when all is stored and the next is shown."""
        about = self.key() if about is None else about
        self.keys(key)
        now: list[str] = []

        def is_next() -> bool:
            shown, ready, _ = self.look()
            now[:] = [shown]
            return shown != about and ready

        self.until(is_next)
        return now[0]

    def labelled(self) -> int:
        return int(self.find("n-labelled").text)
