"""What the pages of a node are told by its settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Hosts whose traffic leaves no machine, so that plain HTTP will do."""

_ORIGIN: Final = re.compile(
    r"(https?)://((?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]))(?::([0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def _origin(value: str) -> str:
    found = _ORIGIN.fullmatch(value.rstrip("/").lower())
    if found is None:
        msg = "wanted https://HOST or https://HOST:PORT, and nothing after it"
        raise ValueError(msg)
    scheme, host, port = found.groups()
    if scheme == "http" and host not in LOOPBACK:
        msg = "plain http carries passwords in the clear: only localhost may be without https"
        raise ValueError(msg)
    return f"{scheme}://{host}" + (f":{port}" if port not in (None, _DEFAULT_PORTS[scheme]) else "")


Origin = Annotated[str, AfterValidator(_origin)]


class WebSettings(BaseModel):
    """Who may read the pages, and where browsers find them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    accounts: Path | None = Field(
        default=None,
        description="File of accounts, as `coin verifier account` writes it; only its "
        "owner may read it. Without it no page is shown.",
    )
    origins: tuple[Origin, ...] = Field(
        default=(),
        max_length=16,
        description="Where browsers find the pages, as https://HOST[:PORT]; requests for other "
        "hosts are refused. Without any, plain HTTP on the loopback interface.",
    )
    session_hours: float = Field(
        default=12.0, gt=0, le=720, description="How long a login lasts, in hours."
    )
    cookie_name: str = Field(
        default="coin_session",
        pattern=r"^[A-Za-z0-9_]{1,64}$",
        description="Name of the session's cookie; over https it is prefixed with __Host-.",
    )
