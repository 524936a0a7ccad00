"""What can be wrong with a log, or with what it is asked."""

from __future__ import annotations

from coin_protocol.errors import CoinError, NotReadyError


class LogForkError(CoinError):
    """A head was given away that the log's own tree does not bear out: nothing more is signed.

    The database lost what it had, or was changed. docs/protocol.md, section 11, says what to do.
    """


class LogDamagedError(CoinError):
    """Entries or hashes that must be there are not, or are others than the tree is made of."""


class UnknownEntryError(CoinError):
    """The log has no such entry."""


class NotSignedError(CoinError):
    """The log signed no head of this size."""


class NotLoggedYetError(NotReadyError):
    """The entry waits for a head that covers it, or no head was signed yet."""
