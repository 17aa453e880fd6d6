"""The pictures of the web page that the README shows: ``python -m tests.screenshots deploy/page``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from benchmarks.results import routing
from mesh.ingress.curves import read_curves
from tests.browser import ask, browsing, looking
from tests.serving import served

QUESTIONS = (("37+58=", 0.2), ("sort 31415=", 0.5), ("reverse mesh=", 0.8), ("204-315=", 0.35))


def main(folder: Path) -> None:
    """Ask the lab's five agents, on a desk by day and on a phone by night."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, scheme in ((1280, "light"), (360, "dark")):
        with (
            served("lab", curves=read_curves(routing())) as (url, _),
            browsing() as browser,
            looking(browser, url, width, scheme) as page,
        ):
            for question, alpha in QUESTIONS:
                ask(page, question, alpha)
            page.wait_for_selector("#last tr button.shown")
            page.wait_for_timeout(1_000)  # rings are drawn by then
            taken = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            taken.convert("RGB").quantize(256).save(folder / f"{scheme}-{width}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
