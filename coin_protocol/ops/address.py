"""HOST:PORT, as every address in the settings is written."""

from __future__ import annotations

import re
from typing import Final

from coin_protocol.errors import ConfigurationError

_LAST_PORT: Final = 65_535
_ADDRESS: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]{1,253})):([0-9]{1,5})")


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 address stands in brackets.

    Raises:
        ConfigurationError: It is not HOST:PORT.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3]) > _LAST_PORT:
        # Not quoted: what stands here may be a secret in the wrong place.
        msg = f"wanted HOST:PORT, port 0 to {_LAST_PORT}"
        raise ConfigurationError(msg)
    return found[1] or found[2], int(found[3])
