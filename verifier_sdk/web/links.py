"""Addresses of pages. Names in them are hostile: every part is quoted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

_DOTS: Final = frozenset({"", ".", ".."})
"""Browsers take these parts out of a path, quoted or not."""

_LOCAL: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2047}")


def provider(name: str) -> str:
    """Return the page of a provider."""
    if name in _DOTS:
        return with_query("/providers/", {"name": name})
    return f"/providers/{quote(name, safe='')}"


def audit(audit_id: bytes) -> str:
    """Return the page of an audit."""
    return f"/audits/{audit_id.hex()}"


def with_query(path: str, values: Mapping[str, str]) -> str:
    """Return a path with those values that are not empty, or the path alone."""
    given = {key: value for key, value in values.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def local(target: str) -> str:
    """Return where to go after a login: a page of ours, or the first one."""
    return target if _LOCAL.fullmatch(target) else "/"
