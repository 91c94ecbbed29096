"""Pictures of a viewer's page at both ends of what screens are wide, by the Chromium that is on the PATH.

    python benchmarks/viewer_screenshots.py PAGE.html#DESIGN.STEP FOLDER

writes ``viewer-1600.png``, light, and ``viewer-400.png``, dark, to the folder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright

SHOTS: dict[int, Literal["light", "dark"]] = {1600: "light", 400: "dark"}


def main(page: str, folder: str) -> None:
    path, _, moment = page.partition("#")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, scheme in SHOTS.items():
            shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            shown.emulate_media(reduced_motion="reduce")
            shown.goto(f"{Path(path).resolve().as_uri()}#{moment}")
            shown.wait_for_selector("#curve svg")
            shown.screenshot(path=Path(folder) / f"viewer-{width}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
