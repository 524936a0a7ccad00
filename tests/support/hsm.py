"""A software HSM with a token of its own: SoftHSM 2, where it is installed."""

from __future__ import annotations

import ctypes.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from coin_protocol.signer import PrivateKey

TOKEN: Final = "coin tests"  # noqa: S105 - its label
PIN: Final = "48151623"
_PLACES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def module() -> str | None:
    """Return SoftHSM's library, or None where it or its tool is not installed."""
    if shutil.which("softhsm2-util") is None:
        return None
    found = next((place for place in _PLACES if Path(place).exists()), None)
    return found or ctypes.util.find_library("softhsm2")


@dataclass(frozen=True)
class Token:
    """An initialised token in a folder of its own.

    Attributes:
        module: The library.
        pin_file: Holds the PIN.
    """

    module: str
    pin_file: Path

    def uri(self, label: str, query: str | None = None, **path: str) -> str:
        """Return the URI of a key by its label; the PIN comes from its file by default."""
        attributes = {"token": TOKEN.replace(" ", "%20"), "object": label} | path
        named = ";".join(f"{name}={value}" for name, value in attributes.items() if value)
        query = f"pin-source=file:{self.pin_file}" if query is None else query
        return f"pkcs11:{named}?module-path={self.module}" + (f"&{query}" if query else "")

    def load(self, key: PrivateKey, label: str, key_id: str, *, public: bool = True) -> None:
        """Import a key pair under a label and a hexadecimal id."""
        file = self.pin_file.with_name(f"{label}.p8")
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _run(
            *("--import", str(file), "--token", TOKEN, "--label", label, "--id", key_id),
            *("--pin", PIN, "--force", *(() if public else ("--no-public-key",))),
        )
        file.unlink()


def make_token(folder: Path, library: str) -> Token:
    """Initialise a token in a folder; `SOFTHSM2_CONF` must name its `softhsm2.conf`."""
    tokens = folder / "tokens"
    tokens.mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    _run("--init-token", "--free", "--label", TOKEN, "--so-pin", PIN, "--pin", PIN)
    pin_file = folder / "pin"
    pin_file.write_text(f"{PIN}\n")
    return Token(library, pin_file)


def _run(*arguments: str) -> None:
    subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True, timeout=60)  # noqa: S607 - found by its name
