"""HOST:PORT, as settings write every address; and for whom the address of a caller counts."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from coin_protocol.errors import ConfigurationError

_LAST_PORT: Final = 65_535
_MAX_HOST: Final = 64
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


def network_of(host: str) -> str:
    """Return whose calls count together: an address, of IPv6 the network that one party has.

    Args:
        host: An address as a server tells it; anything else is returned, cut short.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:_MAX_HOST]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
