"""Page of `inference.demo` in Chromium."""

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from tests.support.command import PROJECT

CHROMIUM = shutil.which("chromium")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SWITCHES += ["--enable-unsafe-swiftshader"]  # WebGL without a GPU
SWITCHES += ["--disable-component-update", "--disable-sync"]
TIMEOUT_MS = 60_000  # the machine may be busy


def serve(*words: str, **env: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command on a free port; return its process and the page's address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.demo", "port=0", *words],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | env,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith("page: http://127.0.0.1:"), process.communicate()
    return process, line.removeprefix("page: ").strip()


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


def open_page(context: Any, url: str, **options: Any) -> Any:
    """Open the page in a new tab, and wait until the camera can be moved."""
    page = context.new_page(**options)
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(url)
    page.wait_for_selector("#camera-control .target")
    return page


def upload(page: Any, picture: Any) -> None:
    page.set_input_files("#photo input[type=file]", picture)


def turn(page: Any, polar: float, azimuth: float, radius: float) -> Image.Image:
    """Move the sliders and return the view."""
    for name, number in (("polar", polar), ("azimuth", azimuth), ("radius", radius)):
        page.locator(f"#camera-control input[name={name}]").evaluate(
            "(slider, number) => { slider.value = number; slider.dispatchEvent(new Event('input')) }", str(number)
        )
    page.locator("#camera-control input[name=radius]").evaluate("slider => slider.dispatchEvent(new Event('change'))")
    return view_after(page, polar, azimuth, radius)


def view_after(page: Any, polar: float, azimuth: float, radius: float) -> Image.Image:
    """Wait for the view after that turn and return it."""
    signed = [f"{number:+g}".replace("-", "−") if number else "0" for number in (polar, azimuth, radius)]
    caption = f"Δpolar {signed[0]}°, Δazimuth {signed[1]}°, Δradius {signed[2]}"
    image = page.locator(f"#view .final img[alt='The object after {caption}']")
    image.wait_for()
    return Image.open(io.BytesIO(base64.b64decode(image.get_attribute("src").split(",")[1])))
