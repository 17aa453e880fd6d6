"""A real browser for the tests of the web page, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
GET_ONE = (
    "`make setup` looks for one; by hand: `playwright install --with-deps chromium`, or `apt-get install chromium`"
)
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium: the machine's own, else Playwright's; where there is none the test is skipped."""
    own = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=own, args=QUIET)
        except Error as error:
            pytest.skip(f"no browser ({error.message.splitlines()[0]}): {GET_ONE}")
        with browser:
            yield browser


@contextlib.contextmanager
def looking(browser: Browser, url: str, width: int = 1280, scheme: Any = "light") -> Iterator[Page]:
    """The page, once it knows its mesh; afterwards its console must have had nothing to complain of."""
    complaints: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#agents tr")
        yield page
    assert complaints == []


def ask(page: Page, question: str, alpha: float | None = None) -> None:
    """Ask, and wait until the answer is there and its path is lit to its end."""
    page.fill("#query", question)
    if alpha is not None:
        page.locator("#alpha").fill(str(alpha))
    page.click("#send")
    page.wait_for_selector("#judge:not([hidden])")
    page.wait_for_selector("#told:not(:empty)", state="attached")


def faults(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds of serious and critical faults: rule, impact, where."""
    found = Axe().run(page).response["violations"]
    return [
        (fault["id"], fault["impact"], node["html"])
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
