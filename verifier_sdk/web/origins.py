"""Where browsers find the pages, and whether a request comes from one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from verifier_sdk.web.settings import LOOPBACK

_HOST: Final = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Origin:
    """The scheme and host that a browser shows.

    Attributes:
        scheme: `https`, or `http` on the loopback interface.
        host: With its port, where that is not the scheme's own.
    """

    scheme: str
    host: str

    @property
    def secure(self) -> bool:
        """Whether cookies travel encrypted."""
        return self.scheme == "https"

    def __str__(self) -> str:
        """Return it as browsers write it in headers."""
        return f"{self.scheme}://{self.host}"


class Origins:
    """The origins that are served: those of the settings, or any port of the loopback."""

    def __init__(self, origins: Iterable[str]) -> None:
        """Hold what the settings name, checked there."""
        split = (origin.partition("://") for origin in origins)
        self._by_host = {host: Origin(scheme, host) for scheme, _, host in split}

    def find(self, host: str) -> Origin | None:
        """Return the origin that a `Host` header names, None where it is none of ours."""
        found = _HOST.fullmatch(host)
        if found is None:
            return None
        if not self._by_host:
            return Origin("http", host.lower()) if found[1].lower() in LOOPBACK else None
        return self._by_host.get(host.lower())


def same_origin(headers: Mapping[str, str], origin: Origin) -> bool:
    """Whether a browser says that one of our own pages sent a form.

    Browsers send `Sec-Fetch-Site` to https and to the loopback. Their `Origin` is `null` beside
    it, since our pages send no referrer; older ones send `Origin` alone. What sends neither is no
    browser that a cookie was given to.
    """
    site, sender = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None:
        return sender == str(origin)
    return site == "same-origin" and sender in (None, "null", str(origin))
