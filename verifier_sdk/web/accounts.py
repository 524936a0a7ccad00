"""The file of accounts: `NAME:scrypt-hash` lines that only their owner can read.

add_account(path, "ada", "correct horse battery")
accounts = AccountFile(path)
account = accounts.check("ada", "correct horse battery")   # None for a wrong name or password
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.files import replace_file

MIN_PASSWORD_CHARACTERS: Final = 12
"""Passwords are guessed online at a bounded rate; this bounds guessing from a stolen file, too."""

MAX_PASSWORD_BYTES: Final = 1024
"""More is no password, and costs time to hash."""

MAX_ACCOUNTS: Final = 1024
"""Lines in one file."""

_MAX_FILE_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LINE: Final = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})"
)
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess costs: scrypt with N = 2^ln and 128 * N * r bytes, p times (RFC 7914).

    The default takes 32 MiB and some 0.3 s of a core.
    """

    ln: int = 15
    r: int = 8
    p: int = 3

    def __post_init__(self) -> None:
        """Check the numbers: a file must not make this process take gigabytes.

        Raises:
            ConfigurationError: They cost too little to protect anything, or too much.
        """
        if not (14 <= self.ln <= 20 and 8 <= self.r <= 16 and 1 <= self.p <= 16):
            msg = f"scrypt wants ln 14 to 20, r 8 to 16, p 1 to 16; found {self}"
            raise ConfigurationError(msg)

    def hash(self, password: bytes, salt: bytes) -> bytes:
        """Return the 32 bytes that a password is known by."""
        return hashlib.scrypt(
            password,
            salt=salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            maxmem=(130 * self.r << self.ln) + (1 << 20),
            dklen=_HASH_BYTES,
        )


_COST: Final = Cost()


@dataclass(frozen=True, slots=True)
class Account:
    """One line of the file.

    Attributes:
        name: Who may log in.
        sha256: Digest of the line: it changes with the password.
    """

    name: str
    sha256: bytes
    cost: Cost = field(repr=False)
    salt: bytes = field(repr=False)
    hashed: bytes = field(repr=False)


def make_account_line(name: str, password: str, *, cost: Cost = _COST) -> str:
    """Return a line for the file of accounts, without its end.

    Args:
        name: Letters, digits and `. _ @ -`, 64 at most.
        password: 12 characters or more.
        cost: Of one guess.

    Raises:
        InvalidInputError: The name or the password will not do.
    """
    if not _NAME.fullmatch(name):
        msg = f"an account's name has 1 to 64 letters, digits or . _ @ -; found {name[:80]!r}"
        raise InvalidInputError(msg)
    if len(password) < MIN_PASSWORD_CHARACTERS:
        msg = f"a password has {MIN_PASSWORD_CHARACTERS} characters or more; found {len(password)}"
        raise InvalidInputError(msg)
    raw = password.encode()
    if len(raw) > MAX_PASSWORD_BYTES:
        msg = f"a password has at most {MAX_PASSWORD_BYTES} bytes; found {len(raw)}"
        raise InvalidInputError(msg)
    salt = secrets.token_bytes(_SALT_BYTES)
    hashed = cost.hash(raw, salt)
    return f"{name}:$scrypt$ln={cost.ln},r={cost.r},p={cost.p}${_encode(salt)}${_encode(hashed)}"


def add_account(file: Path, name: str, password: str, *, cost: Cost = _COST) -> None:
    """Add an account to a file, which only its owner can read; make it where it is not there.

    Args:
        file: Replaced as a whole or not at all.
        name: As `make_account_line`.
        password: As `make_account_line`.
        cost: Of one guess.

    Raises:
        InvalidInputError: The name or the password will not do, the name is taken, or the file
            cannot be written.
        ConfigurationError: The file holds something else than accounts.
    """
    line = make_account_line(name, password, cost=cost)
    before = ""
    if file.exists():
        if name in _read(file):
            msg = f"{name} has an account in {file} already: take its line out first"
            raise InvalidInputError(msg)
        before = file.read_text(encoding="utf-8")
    end = "" if not before or before.endswith("\n") else "\n"
    replace_file(file, f"{before}{end}{line}\n".encode())


def require_account_file(path: Path) -> None:
    """Read a file of accounts once, to say what is wrong with it.

    Raises:
        ConfigurationError: It cannot be read, others can read it, or a line is malformed.
    """
    _read(path)


class AccountFile:
    """The accounts, read again when the file changes. Safe between threads."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is read when it is needed, and need not be there yet."""
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._known: Mapping[str, Account] = {}

    def accounts(self) -> Mapping[str, Account]:
        """Return all accounts by name.

        Raises:
            ConfigurationError: The file cannot be read, others can read it, or a line is
                malformed. What was read before counts no more: it may hold who was removed.
        """
        with self._lock:
            stamp = _stamp_of(self._path)
            if stamp != self._stamp:
                self._stamp, self._known = None, {}
                self._known = _read(self._path)
                self._stamp = stamp
            return self._known

    def check(self, name: str, password: str) -> Account | None:
        """Return the account of this name and password, None where there is none.

        Takes as long for a name that there is not: hash before you answer.

        Raises:
            ConfigurationError: As `accounts`.
        """
        known = self.accounts()
        found = known.get(name)
        raw = password.encode("utf-8", "surrogatepass")[: MAX_PASSWORD_BYTES + 1]
        # Somebody is always hashed against: there is one account at least.
        against = next(iter(known.values())) if found is None else found
        hashed = against.cost.hash(raw, against.salt)
        good = hmac.compare_digest(hashed, against.hashed) and len(raw) <= MAX_PASSWORD_BYTES
        return found if good else None


def _read(path: Path) -> dict[str, Account]:
    try:
        # A pipe would keep whoever opens it waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _require_private(path, os.fstat(descriptor))
            raw = file.read(_MAX_FILE_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        msg = f"cannot read the file of accounts {path}: {error.strerror}"
        raise ConfigurationError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8: wanted lines of NAME:HASH"
        raise ConfigurationError(msg) from error
    if len(raw) > _MAX_FILE_BYTES:
        msg = f"{path} has more than {_MAX_FILE_BYTES} bytes; wanted lines of NAME:HASH"
        raise ConfigurationError(msg)
    found: dict[str, Account] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        account = _parse(line.strip(), f"line {number} of {path}")
        if account.name in found:
            msg = f"line {number} of {path}: the account {account.name!r} is there already"
            raise ConfigurationError(msg)
        found[account.name] = account
    if not found or len(found) > MAX_ACCOUNTS:
        msg = f"{path} has {len(found)} accounts; wanted 1 to {MAX_ACCOUNTS}"
        raise ConfigurationError(msg)
    return found


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path} is no file"
        raise ConfigurationError(msg)
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        msg = f"others than its owner can read or write {path}: run chmod 600 on it"
        raise ConfigurationError(msg)
    if status.st_uid not in (os.geteuid(), 0):
        msg = f"{path} belongs to another user: give it to the one that runs the node"
        raise ConfigurationError(msg)


def _parse(line: str, where: str) -> Account:
    name, _, rest = line.partition(":")
    found = _LINE.fullmatch(rest)
    if not _NAME.fullmatch(name) or found is None:
        # The line may hold a password in the clear: it is not repeated here.
        msg = f"{where}: wanted NAME:HASH as `coin verifier account` writes it"
        raise ConfigurationError(msg)
    ln, r, p, salt, hashed = found.groups()
    cost = Cost(int(ln), int(r), int(p))
    digest = hashlib.sha256(line.encode()).digest()
    return Account(name, digest, cost, _decode(salt), _decode(hashed))


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))
