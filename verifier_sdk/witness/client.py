"""Ask one witness for a cosignature."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from coin_protocol.checkpoint import Checkpoint, read_unverified
from coin_protocol.errors import (
    CoinError,
    ConfigurationError,
    PeerUnavailableError,
    SignatureError,
    StatementError,
    VerificationError,
)
from coin_protocol.limits import CLOCK_SKEW_SECONDS
from coin_protocol.note import NoteAlgorithm, NoteSignature, NoteVerifier, parse_signatures
from coin_protocol.note_key import cosignature_time
from verifier_sdk.witness.wire import (
    MAX_ANSWER_BYTES,
    PATH,
    SIZE_TYPE,
    parse_size_answer,
    write_request,
)

ProofFor = Callable[[int, int], Sequence[bytes]]
"""Takes an old and a new size, 0 < old < new, and gives the consistency proof between them.

It is called in a thread of its own."""

_ATTEMPTS: Final = 3
"""One, one with the size that it was told, and one more where another asks at the same time."""

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_TOO_LONG_A_PAUSE: Final = 16


class WitnessAheadError(VerificationError):
    """A witness has cosigned a larger head of this log than the one that it was shown.

    Where no other process of this log signed one, the log has lost what it had.

    Attributes:
        size: Of the witness's head.
    """

    def __init__(self, message: str, *, size: int) -> None:
        """Say what happened."""
        super().__init__(message)
        self.size = size


class WitnessRefusedError(VerificationError):
    """A witness did not cosign, and will not if it is asked again.

    Attributes:
        status: Of HTTP: 403, 404, 409, 422 or another.
    """

    def __init__(self, message: str, *, status: int) -> None:
        """Say what happened."""
        super().__init__(message)
        self.status = status


class WitnessClient:
    """Asks one witness, and remembers the size of its latest head. For one event loop.

    Use as an async context manager. After a failure the witness is left alone for a while, longer
    each time; calls until then fail at once.
    """

    def __init__(
        self,
        url: str,
        verifier: NoteVerifier,
        *,
        timeout_seconds: float = 5.0,
        authorities: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know a witness; nothing is asked yet.

        Args:
            url: Its submission prefix, `https://…`; `http://` on this machine only.
            verifier: Its key, for cosignatures.
            timeout_seconds: For all that one cosignature takes.
            authorities: PEM file of those that may vouch for its certificate; by default the
                system's.
            clock: POSIX time in seconds, to tell cosignatures from the future.
            monotonic: Seconds, for the pauses.

        Raises:
            ConfigurationError: URL, key or file cannot be used.
        """
        if verifier.key.algorithm is not NoteAlgorithm.COSIGNATURE:
            msg = f"{verifier.vkey} is no key of a witness; wanted one for cosignatures (0x04)"
            raise ConfigurationError(msg)
        self.verifier: Final = verifier
        self._url = _checked(url) + PATH
        self._timeout = timeout_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._sizes: dict[str, int] = {}
        self._failures = 0
        self._not_before = 0.0
        try:
            self._http = httpx.AsyncClient(
                follow_redirects=False,
                # A proxy or a password out of the environment is nothing that was configured here.
                trust_env=False,
                timeout=timeout_seconds,
                verify=ssl.create_default_context(cafile=authorities),
                headers={"accept-encoding": "identity", "user-agent": "coin"},
            )
        except OSError as error:  # of the file, or of TLS
            where = "of this system" if authorities is None else f"in {authorities}"
            msg = f"cannot use the authorities {where}; wanted certificates in PEM"
            raise ConfigurationError(msg) from error

    @property
    def name(self) -> str:
        """The witness's name."""
        return self.verifier.key.name

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def cosign(self, note: bytes, proof_for: ProofFor) -> NoteSignature:
        """Return the witness's cosignature on a checkpoint. It was checked.

        Args:
            note: The checkpoint, signed by its log.
            proof_for: Gives consistency proofs of this log.

        Raises:
            WitnessAheadError: The witness has seen a larger head.
            WitnessRefusedError: It refused for good.
            SignatureError: What it gave is no cosignature of this checkpoint.
            PeerUnavailableError: It cannot be reached, is late, or is left alone for now.
            StatementError: `note` is no checkpoint.
            LimitError: It is too large.
        """
        checkpoint = read_unverified(note)
        now = self._monotonic()
        if now < self._not_before:
            left = self._not_before - now
            msg = (
                f"witness {self.name!r} failed {self._failures} times; left alone for {left:.0f} s"
            )
            raise PeerUnavailableError(msg, status="BACKING_OFF")
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._cosign(checkpoint, note, proof_for)
        except TimeoutError:
            self._failed()
            msg = f"witness {self.name!r} did not answer within {self._timeout:g} s"
            raise PeerUnavailableError(msg, status="DEADLINE_EXCEEDED") from None
        except WitnessAheadError:
            # It answers, and well.
            self._failures = 0
            raise
        except (PeerUnavailableError, WitnessRefusedError, SignatureError):
            self._failed()
            raise
        self._failures = 0
        return found

    async def _cosign(
        self, checkpoint: Checkpoint, note: bytes, proof_for: ProofFor
    ) -> NoteSignature:
        origin, size = checkpoint.origin, checkpoint.size
        for _ in range(_ATTEMPTS):
            old = min(self._sizes.get(origin, 0), size)
            proof: Sequence[bytes] = ()
            if 0 < old < size:
                proof = await asyncio.to_thread(proof_for, old, size)
            status, kind, body = await self._post(write_request(old, proof, note))
            if status == httpx.codes.OK:
                signature = self._checked_answer(checkpoint, body)
                self._sizes[origin] = size
                return signature
            if status != httpx.codes.CONFLICT or kind != SIZE_TYPE:
                raise self._refusal(status, body)
            told = self._told_size(body)
            if told == old:
                raise self._refusal(status, body)
            self._sizes[origin] = told
            if told > size:
                msg = f"witness {self.name!r} has cosigned {told} leaves of this log, not {size}"
                raise WitnessAheadError(msg, size=told)
        msg = f"witness {self.name!r} told another size each time that it was asked"
        raise PeerUnavailableError(msg, status="ABORTED")

    async def _post(self, body: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and body of the answer."""
        parts, length = [], 0
        try:
            async with self._http.stream("POST", self._url, content=body) as answer:
                # Raw: what is compressed could be any size.
                async for piece in answer.aiter_raw():
                    length += len(piece)
                    if length > MAX_ANSWER_BYTES:
                        msg = f"witness {self.name!r} answered with over {MAX_ANSWER_BYTES} bytes"
                        raise PeerUnavailableError(msg, status="RESOURCE_EXHAUSTED")
                    parts.append(piece)
                kind = answer.headers.get("content-type", "")
                return answer.status_code, kind, b"".join(parts)
        except (httpx.HTTPError, httpx.StreamError) as error:
            msg = f"witness {self.name!r} cannot be asked ({type(error).__name__})"
            raise PeerUnavailableError(msg) from error

    def _checked_answer(self, checkpoint: Checkpoint, body: bytes) -> NoteSignature:
        try:
            lines = parse_signatures(body.decode())
        except (UnicodeDecodeError, CoinError) as error:
            msg = f"witness {self.name!r} answered with no cosignature: {error}"
            raise SignatureError(msg) from error
        own = [line for line in lines if self.verifier.made(line)]
        if not own:
            msg = f"witness {self.name!r} signed with another key than {self.verifier.vkey}"
            raise SignatureError(msg)
        text = checkpoint.text()
        for line in own:
            self.verifier.verify(text, line)
        newest = max(own, key=cosignature_time)
        ahead = cosignature_time(newest) - self._clock()
        if ahead > CLOCK_SKEW_SECONDS:
            msg = f"witness {self.name!r} dates its cosignature {ahead:.0f} s into the future"
            raise SignatureError(msg)
        return newest

    def _told_size(self, body: bytes) -> int:
        try:
            return parse_size_answer(body)
        except StatementError as error:
            msg = f"witness {self.name!r} refused with no size: {error}"
            raise PeerUnavailableError(msg, status="UNKNOWN") from error

    def _refusal(self, status: int, body: bytes) -> CoinError:
        """Return the error that a status stands for; the reason is the witness's own text."""
        if status in {408, 425, 429} or status >= 500 or status < 400:
            msg = f"witness {self.name!r} answered {status}"
            return PeerUnavailableError(msg, status=f"HTTP_{status}")
        said = "".join(char for char in body[:200].decode(errors="replace") if char.isprintable())
        msg = f"witness {self.name!r} refused ({status}): {said}"
        return WitnessRefusedError(msg, status=status)

    def _failed(self) -> None:
        self._failures += 1
        doubled = 2.0 ** min(self._failures - 1, _TOO_LONG_A_PAUSE)
        pause = min(_FIRST_PAUSE_SECONDS * doubled, _LONGEST_PAUSE_SECONDS)
        # Spread, so that the logs that lost a witness do not all come back in one moment.
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._not_before = self._monotonic() + pause * spread


def _checked(url: str) -> str:
    try:
        parts = urlsplit(str(httpx.URL(url)))
    except (ValueError, httpx.InvalidURL):
        parts = urlsplit("")
    host = parts.hostname
    plain = parts.scheme == "http" and host in {"localhost", "::1", "127.0.0.1"}
    if (
        not host
        or not (parts.scheme == "https" or plain)
        or parts.username is not None
        or parts.password is not None
        or parts.query
        or parts.fragment
    ):
        # Not quoted: a password may stand in it.
        msg = (
            "a witness's URL is https://HOST[:PORT][/PATH], or http:// on this machine; without "
            "user, password and query"
        )
        raise ConfigurationError(msg)
    return parts.geturl().rstrip("/")
