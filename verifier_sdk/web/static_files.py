"""Scripts, styles and icons: read once, served under names that hold their digest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from verifier_sdk.web.problems import NOT_FOUND, Problem

PREFIX: Final = "/static/"

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_FOREVER: Final = "public, max-age=31536000, immutable"
_DIGEST_CHARACTERS: Final = 16
_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file.

    Attributes:
        name: With its digest.
        kind: Its `Content-Type`.
        body: Its bytes.
    """

    name: str
    kind: str
    body: bytes = field(repr=False)

    @property
    def tag(self) -> str:
        """What it is cached under."""
        return f'"{sha256(self.body).hexdigest()}"'


class StaticFiles:
    """All files of the package's folder `static`."""

    def __init__(self) -> None:
        """Read them."""
        found = dict(_walk(files("verifier_sdk.web") / "static", ""))
        self._urls = {path: PREFIX + file.name for path, file in found.items()}
        self._by_name = {file.name: file for file in found.values()}

    def url(self, path: str) -> str:
        """Return where a file is found, by its path in the folder.

        Raises:
            KeyError: There is none.
        """
        return self._urls[path]

    def serve(self, request: Request) -> Response:
        """Answer a request for one of them."""
        file = self._by_name.get(request.path_params["name"])
        if file is None:
            raise Problem(404, NOT_FOUND)
        headers = {"cache-control": _FOREVER, "etag": file.tag}
        known = request.headers.get("if-none-match", "")
        if known.strip() == "*" or file.tag.strip('"') in _TAG.findall(known):
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers={**headers, "content-type": file.kind})


@lru_cache(maxsize=1)
def static_files() -> StaticFiles:
    """Return the files, read once in this process."""
    return StaticFiles()


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        path = prefix + entry.name
        if entry.is_dir():
            found += _walk(entry, f"{path}/")
            continue
        stem, _, ending = entry.name.rpartition(".")
        if ending in _TYPES:
            body = entry.read_bytes()
            digest = sha256(body).hexdigest()[:_DIGEST_CHARACTERS]
            name = f"{prefix}{stem}.{digest}.{ending}"
            found.append((path, StaticFile(name, _TYPES[ending], body)))
    return found
