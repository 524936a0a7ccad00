"""Under which names a node answers, against names that strangers point at it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator

_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?")
_HEADER: Final = re.compile(r"([a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")


def _name(value: str) -> str:
    name = value.lower()
    if _NAME.fullmatch(name) is None:
        msg = "wanted the name of a host, without scheme and port"
        raise ValueError(msg)
    return name


HostName = Annotated[str, AfterValidator(_name)]
"""A setting that names a host."""


class Hosts:
    """Names under which interface and log may be asked.

    Browsers let a page read whatever answers under its own host's name. Where a stranger points
    that name at this machine (DNS rebinding), the `Host` of the request is still the stranger's.
    Addresses are no names, and nobody can point them elsewhere: they are always taken.
    """

    def __init__(self, names: Iterable[str] | None) -> None:
        """Hold names besides `localhost`; None takes any."""
        self._names = None if names is None else {"localhost", *names}

    @classmethod
    def of(cls, names: Iterable[str], origins: Iterable[str], *, tokens: bool) -> Self:
        """Return the hosts that a node's settings mean.

        Args:
            names: Those that the settings name.
            origins: Of the pages, whose hosts are taken as well.
            tokens: Whether callers show tokens. No browser does so for a stranger's page, and
                the log is public: then any name will do, unless some are named.
        """
        given = set(names)
        if tokens and not given:
            return cls(None)
        return cls(given | {urlsplit(origin).hostname or "" for origin in origins})

    def take(self, header: str) -> bool:
        """Whether a request with this `Host` is answered."""
        if self._names is None:
            return True
        found = _HEADER.fullmatch(header.lower())
        if found is None:
            return False
        name = found[1].removesuffix(".")
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
