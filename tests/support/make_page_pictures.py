"""Write the pictures of the web page, `docs/demo-desktop.png` and `docs/demo-phone.png`, anew.

    python -m tests.support.make_page_pictures models/small docs/pictures/duck.jpg docs

The arguments are a checkpoint, the picture of an object to upload, the folder to write to, and further options of
`inference.demo`. Needs Chromium.
"""

import sys
from pathlib import Path

from tests.support.web_page import browser, open_page, serve, turn, upload, view_after

SAMPLING = ("sampling.guidance=2", "sampling.sampler=dpm_solver", "sampling.steps=20")
SCREENS = {
    "demo-desktop": {"viewport": {"width": 1280, "height": 980}},
    "demo-phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5, "is_mobile": True},
}


def main(checkpoint: str, picture: str, folder: Path, *options: str) -> None:
    """Upload the picture on each screen, turn the camera and save the whole page."""
    process, url = serve(f"checkpoint={checkpoint}", *SAMPLING, *options)
    try:
        with browser() as chromium:
            for name, screen in SCREENS.items():
                context = chromium.new_context(**screen)
                page = open_page(context, url)
                upload(page, picture)
                view_after(page, 0, 45, 0)
                turn(page, -12, 70, 0)
                page.screenshot(path=folder / f"{name}.png", full_page=True)
                context.close()
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
