"""Make docs/serve.png anew, from the real page in a real browser: `python -m tests.page_picture [--phone] [--dark] [OUT]`.

The photos are cut out of the two that ship with scikit-learn (danielbuechele and vultilion, CC BY 2.0). What they show is told
by where they were cut: a person would say it by looking.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.browsing import Page, start
from tests.serving import served

OUT = Path(__file__).parents[1] / "docs" / "serve.png"
SIDE = 150  # pixels of a photo
CLASSES = ("flower", "leaves", "pagoda", "sky", "trees", "water")


def place(name: str, x: int, y: int) -> str:
    """What a photo shows whose middle is here."""
    if name == "flower":
        return "flower" if np.hypot(x - 307, y - 220) < 130 else "leaves"
    if y < 120 and not 120 < x < 300:
        return "sky"
    if 70 < x < 350 and 60 < y < 390:
        return "pagoda"
    return "trees" if y > 290 or x > 530 or x < 70 else "water"


def photos(folder: Path, n: int) -> dict[str, str]:
    """`n` photos; returns what each shows, by its name."""
    rng, shown = np.random.default_rng(0), {}
    folder.mkdir()
    for i in range(n):
        name = ("flower", "china")[i % 2]
        pixels = load_sample_image(f"{name}.jpg")
        half = SIDE // 2
        x, y = (int(rng.integers(half, size - half)) for size in (pixels.shape[1], pixels.shape[0]))
        cut = Image.fromarray(pixels[y - half : y + half, x - half : x + half])
        cut.save(folder / f"IMG_{1000 + i}.jpg", quality=92)
        shown[f"IMG_{1000 + i}.jpg"] = place(name, x, y)
    return shown


def main(*words: str) -> None:
    on_phone = "--phone" in words
    width, height = (390, 844) if on_phone else (1240, 860)
    out = Path(words[-1]) if words and not words[-1].startswith("--") else OUT
    browser = start(width, height)
    screen = {"width": width, "height": height, "deviceScaleFactor": 1 + on_phone, "mobile": on_phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    if "--dark" in words:
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    with tempfile.TemporaryDirectory() as folder:
        shown = photos(Path(folder) / "photos", 400)
        settings = ["--data", f"{folder}/photos", "--classes", ",".join(CLASSES), "--image-size", "16", "-n", "20"]
        models = ["--proxy.model", "logistic", "--target.model", "logistic"]
        with served(Path(folder) / "holiday", *settings, *models, "--port", "0") as server:
            page = Page(browser, server.link, "ann")
            key, n = page.key(), 0
            while n < 110 or shown[key] != "flower":
                key = page.press(str(CLASSES.index(shown[key]) + 1), key)
                if not key:
                    page.until(page.is_asked)
                    key = page.key()
                n += 1
                if n % 20 == 0:
                    page.until(lambda: "is learning" not in page.find("learning").text)
                    key = page.key()
            picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    browser.quit()
    picture.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
