"""The web page in a real browser, against the real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

import mesh
from benchmarks.results import routing
from tests.browser import ask, browsing, faults, looking
from tests.ray.conftest import kill, until
from tests.ray.test_serving import Server
from tests.serving import pool, served
from tests.unit.test_http import KEYS, USER

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

POOL = """
name: watched
understands: {pattern: '.+', examples: ["why?", "how?"]}
defaults: {policy: reliability, assessor: likelihood}
agents:
  - {name: cheap, cost: 0.1, engine: {kind: scripted, answer: from cheap, confidence: 0.75}}
  - {name: middle, cost: 0.5, engine: {kind: scripted, answer: from middle, confidence: 0.8}}
  - {name: dear, cost: 0.9, engine: {kind: scripted, answer: from dear, pieces: 4, piece_s: 0.05}}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def url(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "pool.yaml").write_text(POOL)
    started = Server(str(folder / "pool.yaml"), "--results", str(routing()), log=folder / "log")
    try:
        assert until(started.ready, 120)
        yield started.url
    finally:
        if started.process.poll() is None:
            started.end()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with looking(browser, url) as opened:
        yield opened


def path(page: Page) -> list[list[str]]:
    """The path that is shown: agent, verdict and confidence of each hop."""
    rows = page.locator("#path tr").all()
    cells = [row.locator("th, .badge, td.mono").all_inner_texts() for row in rows]
    return [[agent.lstrip("0123456789"), *rest] for agent, *rest in cells]


def figure(page: Page, name: str) -> str:
    return page.locator("#figures div", has_text=name).first.locator("dd").inner_text()


def test_alpha_changes_the_path_and_the_cost(page: Page) -> None:
    ask(page, "why?", 0.2)
    expect(page.locator("#answer")).to_have_text("from dear")
    dear = [["cheap", "? refused", ".75"], ["middle", "? refused", ".80"], ["dear", "✓ answered", "–"]]
    assert path(page) == dear
    lit = [page.locator(f".node[data-agent={name}]").get_attribute("data-verdict") for name in ("cheap", "dear")]
    assert lit == ["refused", "answered"]
    assert page.locator("#lit path").count() == 2
    costs = float(figure(page, "Cost")), float(figure(page, "Full cost"))
    assert costs[0] == 0.9

    ask(page, "why?", 0.8)
    expect(page.locator("#answer")).to_have_text("from cheap")
    assert path(page) == [["cheap", "✓ answered", ".75"]]
    assert page.locator("#lit path").count() == 0
    assert (figure(page, "Answered by"), float(figure(page, "Cost"))) == ("cheap", 0.1)
    assert float(figure(page, "Full cost")) < costs[1]

    expect(page.locator("#last tr").nth(1)).to_contain_text("cheap ? → middle ? → dear ✓")  # and what was before
    page.locator("#last tr").nth(1).get_by_role("button").click()
    expect(page.locator("#path tr")).to_have_count(3)
    assert path(page) == dear


def test_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#query").focus()
    page.keyboard.type("how?")
    for focused in ("why?", "how?"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=focused)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="Alpha")).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#alpha")).to_have_attribute("aria-valuetext", "1.00, the cheapest answer")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # ask again when alpha moves
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Path:")).to_contain_text("cheap answered, confidence 0.75")
    page.locator("#alpha").focus()
    page.keyboard.press("Home")  # and it does
    expect(page.get_by_role("status").filter(has_text="Path:")).to_contain_text("dear answered")
    page.get_by_role("button", name="It is right").press("Enter")
    expect(page.locator("#judged")).to_have_text("Noted as right.")


def test_what_was_measured_follows_the_slider(page: Page) -> None:
    expect(page.locator("#measured")).to_contain_text("pool lab-mesh")
    ours = page.locator("#worth tr", has_text="self-judging agents").locator("td")
    told = set()
    for alpha in ("0.2", "0.35", "0.8"):
        page.locator("#alpha").fill(alpha)
        told.add(ours.inner_text())
    page.get_by_text("all work").click()
    told.add(ours.inner_text())
    assert len(told) == 4
    assert not [text for text in told if not 0.5 < float(text) < 0.9]
    page.locator("#alpha").fill("0")
    expect(page.locator("#worth-at")).to_contain_text("nothing was measured")


def test_an_agent_that_is_killed_is_down_and_comes_back(page: Page) -> None:
    row = page.locator("#agents tr", has_text="middle")
    expect(row).to_contain_text("up")
    down = page.locator("#agents tr", has_text="middle").locator(".down, .starting")
    with mesh.connect("watched") as connected:
        for _ in range(4):  # each time it is away for longer; once it may be back before the page has looked
            kill(connected, "middle")
            if until(lambda: down.count() == 1, 3):
                break
            expect(row).to_contain_text("up", timeout=20_000)
        else:
            pytest.fail("the page has not shown that an agent was down")
    expect(page.locator(".node.away")).to_have_attribute("data-agent", "middle")
    expect(page.locator("#health")).to_have_text("2 of 3 agents up")
    expect(page.locator("#health")).to_have_text("3 of 3 agents up", timeout=30_000)
    expect(page.locator(".node.away")).to_have_count(0)
    assert int(row.locator("td").last.inner_text()) >= 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_for_everybody(browser: Browser, url: str, width: int, scheme: str) -> None:
    """Nothing serious for axe-core, before and after a question; nothing sticks out."""
    with looking(browser, url, width, scheme) as page:
        assert faults(page) == []
        ask(page, "why?", 0.2)
        page.get_by_text("The same from a shell").click()
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert "'{" in page.locator("#shell").inner_text()


def test_a_key_is_asked_for(browser: Browser) -> None:
    slow = {"answer": "one two three", "pieces": 3, "piece_s": 2.0}
    with served(pool({"a": slow}), KEYS) as (locked, _), browser.new_context() as context:
        page = context.new_page()
        page.goto(locked)
        page.get_by_label("This server wants a key").fill(USER)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#health")).to_have_text("1 of 1 agents up")
        expect(page.locator("#curves")).to_be_hidden()  # nothing was measured of this mesh
        assert faults(page) == []
        page.fill("#query", "x")
        page.click("#send")
        expect(page.locator(".node.busy .count")).to_have_text("1", timeout=10_000)  # live
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("alert")).to_have_text("Stopped.")
        expect(page.locator(".node.busy")).to_have_count(0)
