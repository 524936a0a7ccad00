"""The pages of a node in a real browser: clicked through, used by keyboard, read by axe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from coin_protocol.receipt import read_bundle
from tests.support.chromium import Watched, chromium, served, watching
from tests.support.web_site import (
    ACCOUNT,
    HOSTILE,
    PASSWORD,
    WebNode,
    add_bundle,
    bundle_of,
    fill,
    fill_log,
    rows_of,
    visiting,
    web_node,
)
from verifier_sdk.web import links

_AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
_RUN_AXE = """async (options) => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"], ...options });
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
}"""
_ALL_RULES = {"rules": {"color-contrast-enhanced": {"enabled": True}}}
_RULES_OF_COLOURS = {"runOnly": ["cat.color"]}
_LIGHTS: tuple[tuple[Literal["light", "dark"], dict[str, Any]], ...] = (
    ("light", _ALL_RULES),
    # In the dark nothing is another but the colours.
    ("dark", _RULES_OF_COLOURS),
)

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}


@dataclass(frozen=True)
class House:
    """A node that is served, and a session of it."""

    node: WebNode
    origin: str
    session: str

    def audit(self, what: str) -> str:
        """Return the path of an audit with a bundle."""
        return f"/audits/{self.node.bundles[what].hex()}"

    def enter(self, watched: Watched) -> Page:
        """Give a browser the session."""
        cookie = {"name": "coin_session", "value": self.session, "url": self.origin}
        watched.context.add_cookies([cookie])  # type: ignore[list-item]
        return watched.page


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A filled node, served."""
    folder = tmp_path_factory.mktemp("web")
    with web_node("sqlite", folder) as node:
        fill(node)
        add_bundle(node, "pass", bundle_of(), share_low=0.0, share_high=0.14)
        add_bundle(node, "fail", bundle_of(seed="f", forged=True), failed_check="BILL")
        fill_log(node, folder, rows_of(node, 6))
        with visiting(node) as client:
            session = client.cookies["coin_session"]
        with served(node.app()) as origin:
            yield House(node, origin, session)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as found:
        yield found


def test_a_visit_from_login_to_logout_by_keyboard_alone(house: House, browser: Browser) -> None:
    with watching(browser, house.origin, viewport=DESK) as watched:
        page = watched.page
        page.goto("/audits?outcome=fail")
        expect(page).to_have_title("Log in · CoIn verifier")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type(ACCOUNT)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/audits?outcome=fail")
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        _tab_to(page, "#sort-tokens")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        page.wait_for_url("**/audits?outcome=fail&sort=tokens&dir=desc")
        # What was pressed keeps the focus, so that pressing it again turns the order.
        expect(page.locator("#sort-tokens")).to_be_focused()
        page.keyboard.press("Enter")
        page.wait_for_url("**/audits?outcome=fail&sort=tokens&dir=asc")
        _tab_to(page, ".audits tbody a")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"/audits/[0-9a-f]{64}$"))
        _tab_to(page, ".leave button")
        page.keyboard.press("Enter")
        page.wait_for_url("**/login")
        page.goto("/audits")
        expect(page.get_by_label("Password")).to_be_visible()


def test_the_list_sorts_filters_and_turns_pages_in_place(house: House, browser: Browser) -> None:
    with watching(browser, house.origin, viewport=DESK) as watched:
        page = house.enter(watched)
        page.goto("/audits")
        page.evaluate("window.here = true")
        status = page.locator(".count")
        page.get_by_role("link", name="After").click()
        page.wait_for_url("**/audits?after=*")
        page.get_by_role("link", name="Before").click()
        page.wait_for_url("**/audits?before=*")
        page.locator("#sort-tokens").click()
        page.wait_for_url("**sort=tokens&dir=desc")
        head = page.get_by_role("columnheader", name="Tokens")
        expect(head).to_have_attribute("aria-sort", "descending")
        shown = [int(text.replace(",", "")) for text in page.locator("td.number").all_inner_texts()]
        assert shown == sorted(shown, reverse=True)
        page.get_by_label("Outcome").select_option("fail")
        page.get_by_label("Provider").select_option("lab")
        page.get_by_role("button", name="Filter").click()
        page.wait_for_url("**/audits?provider=lab&outcome=fail&sort=tokens&dir=desc")
        expect(status).to_have_text(re.compile(r"^\s*[1-9] audits?\."))
        expect(page.locator(".audits .tag.fail").first).to_be_visible()
        expect(page.locator(".audits .tag.pass")).to_have_count(0)
        # Times of rows that came later are shown in the reader's zone, too.
        expect(page.locator(".audits time").first).to_have_attribute("title", re.compile("UTC$"))
        assert page.evaluate("window.here") is True, "no page was loaded anew"
        kept = page.url
        page.go_back()
        page.wait_for_url("**sort=tokens&dir=desc")
        expect(page.locator(".audits .tag.pass").first).to_be_visible()
        page.goto(kept)
        expect(status).to_have_text(re.compile(r"^\s*[1-9] audits?\."))
        assert (
            page.evaluate("JSON.stringify(sessionStorage) + JSON.stringify(localStorage)").find("<")
            == -1
        ), "no page is kept in the browser"


def test_what_goes_wrong_in_place_is_told_in_a_page(house: House, browser: Browser) -> None:
    with watching(browser, house.origin) as watched:
        page = house.enter(watched)
        page.goto("/audits")
        page.evaluate("window.here = true")

        def refuse(route: Route) -> None:
            if "hx-request" in route.request.headers:
                route.fulfill(status=500)
            else:
                route.continue_()

        page.route("**/audits?sort=model*", refuse)
        page.locator("#sort-model").click()
        page.wait_for_url("**/audits?sort=model&dir=asc")
        expect(page.locator("#sort-model .arrow")).to_have_text("▴")
        assert page.evaluate("window.here") is None, "the page was loaded as a page"
        watched.context.clear_cookies()
        page.locator("#sort-tokens").click()
        page.wait_for_url("**/login?next=%2Faudits*sort*")
        watched.wrong[:] = [one for one in watched.wrong if not re.search("401|500", one)]


def test_the_pages_work_without_scripts(house: House, browser: Browser) -> None:
    with watching(browser, house.origin, java_script_enabled=False, viewport=PHONE) as watched:
        page = house.enter(watched)
        page.goto("/")
        expect(page.locator(".plot").first).to_be_hidden()
        page.get_by_text("The same as a table").first.click()
        expect(page.get_by_role("columnheader", name="Submitted")).to_be_visible()
        page.get_by_role("link", name="Audits", exact=True).click()
        expect(page.locator(".audits time").first).to_have_text(re.compile(r"UTC$"))
        page.locator("#sort-model").click()
        page.wait_for_url("**/audits?sort=model&dir=asc")
        page.get_by_label("State").select_option("queued")
        page.get_by_role("button", name="Filter").click()
        page.wait_for_url("**state=queued*sort=model*")
        expect(page.locator(".count")).to_have_text(re.compile("5 audits"))


def test_times_are_in_the_zone_of_the_reader_and_say_so(house: House, browser: Browser) -> None:
    with watching(browser, house.origin, timezone_id="America/New_York") as watched:
        page = house.enter(watched)
        page.goto("/")
        now = page.locator("main time").first
        expect(now).to_have_text("2026-09-21 10:13:20 GMT-4")
        expect(now).to_have_attribute("title", "2026-09-21 14:13:20 UTC")
        expect(page.locator("#zone")).to_have_text("your zone, America/New York")


def test_charts_are_drawn_and_read_out(house: House, browser: Browser) -> None:
    with watching(browser, house.origin, viewport=DESK) as watched:
        page = house.enter(watched)
        for path, charts in (
            ("/", 2),
            ("/providers/lab", 3),
            (house.audit("pass"), 1),
            ("/log", 1),
        ):
            page.goto(path)
            expect(page.locator(".plot canvas")).to_have_count(charts)
            for index in range(charts):
                inked = (
                    page.locator(".plot canvas")
                    .nth(index)
                    .evaluate(
                        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height)"
                        ".data.some((value) => value > 0)"
                    )
                )
                assert inked, f"{path}: chart {index} is blank"
            over = page.locator(".u-over").first
            over.scroll_into_view_if_needed()
            over.hover()
            expect(page.locator(".readout").first).not_to_be_empty()


def test_names_of_providers_do_no_harm(house: House, browser: Browser) -> None:
    with watching(browser, house.origin) as watched:
        page = house.enter(watched)
        for name in (HOSTILE[0], HOSTILE[2], "..", HOSTILE[3], HOSTILE[5]):
            page.goto("/")
            page.locator(f"main a[href='{links.provider(name)}']").first.click()
            expect(page.locator("h1 .name")).to_be_visible()
            expect(page.locator(".count")).to_have_text(re.compile(r"^\s*1 audit\."))
            if not name.startswith("."):
                assert page.url == house.origin + links.provider(name)
        page.goto(house.audit("fail"))
        expect(page.locator("td .fail")).to_contain_text("the bill counts 664 reasoning tokens")


def test_a_bundle_is_downloaded_and_whole(house: House, browser: Browser, tmp_path: Path) -> None:
    with watching(browser, house.origin, accept_downloads=True) as watched:
        page = house.enter(watched)
        page.goto(house.audit("pass"))
        bundles = []
        for name, ending in (("Bundle (protobuf)", "binpb"), ("Bundle (JSON)", "json")):
            with page.expect_download() as waiting:
                page.get_by_role("link", name=name).click()
            file = waiting.value
            start = house.node.bundles["pass"].hex()[:16]
            assert file.suggested_filename == f"coin-audit-{start}.{ending}"
            file.save_as(tmp_path / ending)
            bundles.append(read_bundle((tmp_path / ending).read_bytes()))
        assert bundles[0] == bundles[1]
        assert bundles[0].receipt.answer == b"the answer"


def test_an_entry_is_looked_up_in_the_log(house: House, browser: Browser) -> None:
    with watching(browser, house.origin) as watched:
        page = house.enter(watched)
        page.goto("/log")
        page.get_by_label(re.compile("^Audit id")).fill(house.node.bundles["pass"].hex())
        page.get_by_role("button", name="Look up").click()
        page.wait_for_url("**/log?find=*")
        expect(page.locator("article.entry")).to_have_count(2)
        expect(page.locator("article.entry .status-passed").first).to_have_text("included")
        page.locator("article.entry summary").first.click()
        expect(page.locator("article.entry .proof li").first).to_be_visible()
        page.locator("article.entry dd a").first.click()
        page.wait_for_url(f"**{house.audit('pass')}")


def test_axe_finds_nothing_on_any_page_in_any_light_at_any_width(
    house: House, browser: Browser
) -> None:
    wrong: list[str] = []
    with watching(browser, house.origin, viewport=DESK) as watched:
        page = watched.page
        for path in (
            "/login",
            "/",
            "/audits?outcome=fail",
            "/providers/other%20lab",
            house.audit("pass"),
            f"/log?find={house.node.bundles['pass'].hex()}",
            "/nothing",
        ):
            if path == "/":
                house.enter(watched)
            page.goto(path)
            page.evaluate(_AXE)
            for viewport in (DESK, PHONE):
                page.set_viewport_size(viewport)  # type: ignore[arg-type]
                for light, options in _LIGHTS:
                    page.emulate_media(color_scheme=light)
                    found = page.evaluate(_RUN_AXE, options)
                    if found:
                        wrong.append(f"{path} at {viewport['width']} px, {light}: {found}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > viewport["width"]:
                    wrong.append(f"{path} is {wide} px wide at {viewport['width']}")
        assert wrong == [], "\n".join(wrong)
        watched.wrong[:] = [one for one in watched.wrong if "404" not in one]


def test_a_real_server_takes_any_name_and_sends_no_body_for_head(house: House) -> None:
    cookies = {"coin_session": house.session}
    with httpx.Client(base_url=house.origin, cookies=cookies) as client:
        for name in HOSTILE:
            response = client.get(links.provider(name))
            assert response.status_code == 200, name
            assert "<h1><bdi" in response.text
        asked = client.head("/audits")
        assert (asked.status_code, asked.content) == (200, b"")
        assert int(asked.headers["content-length"]) > 1000
        assert "server" not in asked.headers


def _tab_to(page: Page, selector: str, most: int = 60) -> None:
    """Press Tab until an element that the selector names has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
    pytest.fail(f"{selector} is not reached by keyboard")
