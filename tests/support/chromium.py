"""A real browser for tests of pages, and a server that it reaches."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import uvicorn
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    sync_playwright,
)

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WATCH: Final = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on a free port of this machine; give its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="off", server_header=False)
        server = uvicorn.Server(config)
        # The socket listens already: what comes before the server runs waits in it.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser without a window; skip where there is none, but not in CI."""
    path = os.environ.get("COIN_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: install it, or name it in COIN_TEST_CHROMIUM")
        pytest.skip("no chromium on the path, and none in COIN_TEST_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page of a browser, and all that went wrong in it."""

    page: Page
    context: BrowserContext
    wrong: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def require_quiet(self) -> None:
        """Fail where a script erred, the policy was broken, or something came from elsewhere."""
        assert self.wrong == []


@contextmanager
def watching(browser: Browser, origin: str, **given: Any) -> Iterator[Watched]:
    """Give a page with cookies of its own; anything wrong fails the test at its end."""
    context = browser.new_context(base_url=origin, **given)
    context.add_init_script(_WATCH)
    context.set_default_timeout(10_000)
    page = context.new_page()
    watched = Watched(page, context)

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            watched.wrong.append(f"console: {message.text}")

    def asked(request: Request) -> None:
        watched.requests.append(request.url)
        if not request.url.startswith((f"{origin}/", "data:")):
            watched.wrong.append(f"asked elsewhere: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: watched.wrong.append(f"script: {error}"))
    page.on("dialog", lambda dialog: watched.wrong.append(f"dialog: {dialog.message}"))
    page.on("request", asked)
    try:
        yield watched
        watched.require_quiet()
    finally:
        context.close()
