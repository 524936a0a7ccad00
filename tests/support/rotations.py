"""Key folders that rotate, and time moved by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from coin_protocol.key_keeper import KeyKeeper, NewKey
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import SignedKeySet, sign_key_set
from tests.support.chains import DAY

HOUR = timedelta(hours=1)
KEY = NewKey(30 * DAY)


class Clock:
    """Time moved by hand."""

    def __init__(self) -> None:
        """Begin now."""
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


def until(holds: Callable[[], bool]) -> None:
    """Wait for what a thread in the background brings about."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def rotated(folder: KeyKeeper, key: NewKey = KEY) -> str:
    """Rotate, and return the id of the new key."""
    return folder.rotate(key, HOUR, folder.root(None)).key.keyid


def list_keys(folder: KeyKeeper, keys: Sequence[ListedKey], sequence: int) -> None:
    """Put a key set that lists just these keys, in this order, into a folder."""
    owner, now = folder.read()[1].owner, datetime.now(UTC)
    root = folder.root(None)
    signed = sign_key_set(owner, keys, root=root.signer, issued_at=now, sequence=sequence)
    folder.key_set_path.write_bytes(SignedKeySet(signed, root.chain).to_bytes())
