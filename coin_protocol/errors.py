"""Every error of the three packages, in two families.

`VerificationError`: something is wrong with what was shown, and trying again will not help.
`TryLaterError`: nothing is known to be wrong; the same call may go through later. The rest
are mistakes of the caller (`InvalidInputError` and its kinds) or of the installation.
"""

from __future__ import annotations


class CoinError(Exception):
    """Base of all errors that this project raises on purpose; the message is for people."""


class InvalidInputError(CoinError, ValueError):
    """An argument or a file is not what it must be; the message says what was wanted."""


class LimitError(InvalidInputError):
    """An input passes a stated limit (`coin_protocol.limits`)."""


class ConfigurationError(CoinError):
    """A key, profile, policy or option cannot be used as it stands."""


class ModelMismatchError(ConfigurationError):
    """A model's files are not those that the profile names by digest."""


class MissingDependencyError(ConfigurationError):
    """An optional package is needed; the message names the extra that brings it."""


class VerificationError(CoinError):
    """A check failed: what was shown does not prove what it should."""


class InclusionProofError(VerificationError):
    """An RFC 9162 inclusion proof is malformed or leads to another root."""


class ConsistencyProofError(VerificationError):
    """An RFC 9162 consistency proof is malformed or leads to other roots."""


class SignatureError(VerificationError):
    """An envelope carries no signature of a key that may sign it."""


class KeyWindowError(SignatureError):
    """The signature is good, but its key was not valid at the time it is dated."""


class StatementError(VerificationError):
    """Signed bytes do not parse as their statement, or a field is out of its limits."""


class QuantisationError(VerificationError, ValueError):
    """A vector cannot be quantised, or bytes are not a quantised vector."""


class RefusedError(CoinError):
    """A challenge will not be answered (provider side)."""


class ExposureCapError(RefusedError):
    """Answering could pass an exposure cap of the profile."""


class FlipsUsedUpError(RefusedError):
    """Every link of the commitment's hash chain was revealed."""


class UnknownCommitmentError(CoinError):
    """The provider holds no session with this commitment."""


class PurgedCommitmentError(UnknownCommitmentError):
    """The provider knows the commitment, and deleted its secrets when its retention ended."""


class TryLaterError(CoinError):
    """Nothing is known to be wrong; the same call may go through later."""


class StoreUnavailableError(TryLaterError):
    """What must be on disk before an answer leaves could not be written or read in time."""


class NotReadyError(TryLaterError):
    """The fingerprints of this commitment are still being made."""


class PeerUnavailableError(TryLaterError):
    """A peer did not answer in time, hung up or cannot be reached.

    Attributes:
        status: Name of the gRPC status, or another word on what came instead of an answer.
    """

    def __init__(self, message: str, *, status: str = "UNAVAILABLE") -> None:
        """Say what happened."""
        super().__init__(message)
        self.status = status
