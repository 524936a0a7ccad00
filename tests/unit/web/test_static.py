"""Scripts and styles: ours and others', each under its digest, none from elsewhere."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from starlette.testclient import TestClient

from tests.support.web_site import WebNode, browser
from verifier_sdk.web.static_files import static_files

PACKAGE = Path(str(files("verifier_sdk.web")))
STATIC = PACKAGE / "static"
OURS = [
    *sorted((PACKAGE / "templates").glob("*.html")),
    *sorted(path for path in STATIC.iterdir() if path.suffix in {".js", ".css", ".svg"}),
]


def test_files_of_others_are_those_that_are_listed() -> None:
    listed = dict(
        re.findall(
            r"\| `(vendor/[^`]+)` \|.*\| `([0-9a-f]{64})` \|", (STATIC / "VENDORED.md").read_text()
        )
    )
    found = {
        str(path.relative_to(STATIC)): sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
    }
    assert listed == found
    scripts = {path for path in found if not path.endswith("LICENSE.txt")}
    assert scripts == {"vendor/htmx.min.js", "vendor/uplot.min.js", "vendor/uplot.min.css"}
    for script in scripts:
        assert f"{script.split('.')[0]}.LICENSE.txt" in found


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_in_a_page() -> None:
    assert len(OURS) > 10
    for path in OURS:
        source = path.read_text()
        text = source.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "//" not in re.sub(r"(?m)^\s*//.*$", "", text), path
        assert not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:", text), path
        assert "eval(" not in text, path
        assert "innerHTML" not in text, path
        for tag in re.findall(r"<script[^>]*>", text):
            assert "defer src=" in tag or 'type="application/json"' in tag, path


def test_a_file_is_cached_for_ever_under_a_name_that_changes_with_it(empty: WebNode) -> None:
    with browser(empty) as client:
        for path in ("pages.css", "vendor/uplot.min.js", "icon.svg"):
            body = (STATIC / path).read_bytes()
            url = static_files().url(path)
            assert sha256(body).hexdigest()[:16] in url
            response = client.get(url)
            assert response.content == body
            assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert response.headers["etag"] == f'"{sha256(body).hexdigest()}"'
            assert client.get(f"/static/{path}").status_code == 404
            assert client.get(url.replace(url.split(".")[-2], "0" * 16)).status_code == 404


def test_a_file_that_the_browser_has_is_not_sent_again(empty: WebNode) -> None:
    with browser(empty) as client:
        url = static_files().url("pages.css")
        tag = client.get(url).headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            response = client.get(url, headers={"if-none-match": known})
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == tag
        assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_pages_name_files_that_there_are(reader: TestClient) -> None:
    for path in ("/", "/audits", "/log", "/providers/lab"):
        page = reader.get(path).text
        named = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page))
        assert len(named) >= 5
        for url in named:
            assert reader.get(url).status_code == 200, url
