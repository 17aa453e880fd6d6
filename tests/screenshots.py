"""The pictures of the web page that the README shows: ``python -m tests.screenshots deploy/page``."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.results import routing
from mesh.ingress.curves import read_curves
from tests.browser import ask, browsing, looking
from tests.serving import served

QUESTIONS = (("37+58=", 0.2), ("sort 31415=", 0.5), ("reverse mesh=", 0.8), ("204-315=", 0.35))


def main(folder: Path) -> None:
    """Ask the lab's five agents, on a desk and on a phone, by day and by night."""
    folder.mkdir(parents=True, exist_ok=True)
    with served("lab", curves=read_curves(routing())) as (url, _), browsing() as browser:
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")):
            with looking(browser, url, width, scheme) as page:
                for question, alpha in QUESTIONS:
                    ask(page, question, alpha)
                page.wait_for_selector("#last tr button.shown")
                page.screenshot(path=folder / f"{scheme}-{width}.png", full_page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
