"""Bearer tokens: what clients show, and the file of digests that a server knows them by."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from coin_protocol.errors import ConfigurationError
from coin_protocol.limits import MAX_NAME_BYTES
from coin_protocol.transport.observe import Observer
from coin_protocol.transport.reload import Reloaded

MAX_TOKENS: Final = 1024
"""Lines with a token in one file: each call is compared with all of them."""

MAX_TOKEN_CHARACTERS: Final = 512
"""Of what a client shows; longer than any token in use, and cheap to hash."""

_MAX_FILE_BYTES: Final = 1 << 20
_TOKEN_BYTES: Final = 32
_SCHEME: Final = "bearer "


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token for a verifier, and the line for the server's file.

    Attributes:
        token: For the verifier; it is kept nowhere else.
        line: `NAME=HEX`, the SHA-256 of the token.
    """

    token: str
    line: str

    def __repr__(self) -> str:
        """Show the line only."""
        return f"NewToken(line={self.line!r})"


def make_token(name: str) -> NewToken:
    """Return a random token of 256 bits for the verifier `name`.

    Raises:
        ConfigurationError: The name cannot stand in a line of the file.
    """
    _require_name(name)
    token = "coin_" + secrets.token_urlsafe(_TOKEN_BYTES)
    return NewToken(token, f"{name}={_digest(token).hex()}")


def read_token(path: Path) -> str:
    """Return the token that a client's file holds on its one line.

    Raises:
        ConfigurationError: The file cannot be read, or holds something else.
    """
    token = _read(path).strip()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        msg = f"wanted one token, without spaces, in {path}"
        raise ConfigurationError(msg)
    if len(token) > MAX_TOKEN_CHARACTERS:
        msg = f"the token in {path} has more than {MAX_TOKEN_CHARACTERS} characters"
        raise ConfigurationError(msg)
    return token


class TokenFile:
    """The digests of all verifiers' tokens, read again when the file changes."""

    def __init__(self, path: Path, observer: Observer) -> None:
        """Read a file of lines `NAME=HEX`; empty lines and those that begin with # are skipped.

        A name may have several lines: while a token is replaced, both are good.

        Raises:
            ConfigurationError: It cannot be read, or a line is something else.
        """
        self._known = Reloaded("tokens", (path,), lambda: _read_digests(path), observer)

    def name_of(self, header: str) -> str | None:
        """Return whose token an `authorization` header shows; None for nobody's.

        Takes the same time whichever token of the file it is.
        """
        scheme, token = header[: len(_SCHEME)].lower(), header[len(_SCHEME) :].strip()
        if scheme != _SCHEME or len(token) > MAX_TOKEN_CHARACTERS:
            return None
        shown = _digest(token)
        found = None
        for name, digest in self._known.get():
            if hmac.compare_digest(shown, digest):
                found = name
        return found


def _read_digests(path: Path) -> tuple[tuple[str, bytes], ...]:
    found = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, separator, digest = text.rpartition("=")
        if not separator or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            # The line may be a token in the clear: it is not repeated here.
            msg = f"line {number} of {path}: wanted NAME=SHA256 in 64 hex digits"
            raise ConfigurationError(msg)
        _require_name(name)
        found.append((name, bytes.fromhex(digest)))
    if not found or len(found) > MAX_TOKENS:
        msg = f"{path} has {len(found)} tokens; wanted 1 to {MAX_TOKENS}"
        raise ConfigurationError(msg)
    return tuple(found)


def _require_name(name: str) -> None:
    if not name or name != name.strip() or not name.isprintable() or name.startswith("#"):
        msg = f"a verifier's name must be printable, without spaces at its ends; found {name!r}"
        raise ConfigurationError(msg)
    if len(name.encode()) > MAX_NAME_BYTES:
        msg = f"a verifier's name has at most {MAX_NAME_BYTES} bytes of UTF-8"
        raise ConfigurationError(msg)


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            msg = f"{path} has more than {_MAX_FILE_BYTES} bytes; wanted a file of tokens"
            raise ConfigurationError(msg)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"cannot read the token file {path}: {error.strerror}"
        raise ConfigurationError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8"
        raise ConfigurationError(msg) from error
