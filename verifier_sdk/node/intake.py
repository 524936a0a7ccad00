"""Receipts in: checked, sampled, and on disk before anybody is told so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from coin_protocol import envelope
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    CoinError,
    InvalidInputError,
    StoreUnavailableError,
    TryLaterError,
    VerificationError,
)
from coin_protocol.keyset import SignedKeySet
from coin_protocol.log_leaf import CommitmentLeaf
from coin_protocol.receipt import check_receipt
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.node.equivocation import commitment_conflict
from verifier_sdk.node.providers import Providers
from verifier_sdk.node.sampling import ALWAYS, drawn, risk
from verifier_sdk.store.quota import DEFAULT_QUOTA, Quota, Refused
from verifier_sdk.store.submissions import Submission, keep
from verifier_sdk.store.tables import BY_RISK, BY_SHARE

MAX_WAITING: Final = 2048
"""Receipts that wait for the disk; more are told to come again."""

MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
"""The same in bytes."""

_BATCH: Final = 256
_BATCH_BYTES: Final = 16 * 1024 * 1024
_RECORD_SECONDS: Final = 60.0


_LOG = logging.getLogger(__name__)
_Batch = list[tuple[Submission, asyncio.Future[str]]]


class ForgedReceiptError(InvalidInputError):
    """No key of the named provider signed the receipt's commitment: it is evidence of nothing."""


class QuotaSpentError(TryLaterError):
    """The client has handed in as much as is kept of one in a day.

    Attributes:
        seconds: After which the next day begins.
    """

    def __init__(self, message: str, *, seconds: float) -> None:
        """Say what is spent."""
        super().__init__(message)
        self.seconds = seconds


class CommitmentFullError(CoinError):
    """As many receipts of this commitment were kept of the client as may be."""


@dataclass(frozen=True)
class Kept:
    """What became of a submitted receipt.

    Attributes:
        audit_id: SHA-256 of commitment and receipt, 32 bytes.
        state: As in the table of audits.
    """

    audit_id: bytes
    state: str


class Intake:
    """Takes receipts. Those that come while the disk is busy share its next transaction."""

    def __init__(
        self,
        engine: Engine,
        providers: Providers,
        *,
        secret: bytes,
        block_size: int,
        failed_share: Callable[[str], float],
        quota: Quota = DEFAULT_QUOTA,
        kept: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take receipts of these providers.

        Args:
            engine: Of the node's database.
            providers: Whose receipts are taken.
            secret: Draws the share that is audited.
            block_size: Of the profile.
            failed_share: Of a provider's latest audits; may read the database.
            quota: Of each client.
            kept: Told how many receipts are on disk, after each transaction.
        """
        self._engine = engine
        self._providers = providers
        self._secret = secret
        self._block_size = block_size
        self._failed_share = failed_share
        self._quota = quota
        self._told = kept
        self._records: dict[str, tuple[float, float]] = {}
        self._waiting: deque[tuple[Submission, asyncio.Future[str]]] = deque()
        self._bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    def prepare(self, receipt: receipt_pb2.Receipt, caller: str) -> Submission:
        """Check a receipt and say what becomes of it; hashes and signatures, no disk.

        Args:
            receipt: As it came.
            caller: Who was authenticated, if anybody.

        Raises:
            InvalidInputError: The receipt is malformed.
            UnknownProviderError: It is of a provider that this node does not audit.
            ForgedReceiptError: The provider did not sign its commitment.
        """
        check_receipt(receipt)
        try:
            commitment = read_commitment(receipt.commitment.payload)
        except CoinError as error:
            msg = f"the receipt's commitment cannot be read: {error}"
            raise InvalidInputError(msg) from error
        provider = self._providers[commitment.provider]
        served = SignedKeySet(receipt.key_set, tuple(receipt.root_chain))
        try:
            keys = provider.keys_of(served)
            envelope.verify(receipt.commitment, envelope.COMMITMENT, keys)
        except VerificationError as error:
            msg = f"the receipt's commitment is not signed by {provider.name!r}: {error}"
            raise ForgedReceiptError(msg) from error
        if keys.owner != provider.name:
            msg = f"the receipt's key set is that of {keys.owner!r}, not of {provider.name!r}"
            raise ForgedReceiptError(msg)
        raw = receipt.SerializeToString()
        commitment_sha256 = digest(receipt.commitment.payload)
        points = risk(
            receipt,
            commitment,
            block_size=self._block_size,
            failed_share=self._record(provider.name),
        )
        way = BY_RISK if points >= ALWAYS else None
        if drawn(self._secret, commitment_sha256, provider.share):
            way = BY_SHARE
        return Submission(
            audit_id=digest(commitment_sha256 + raw),
            provider=provider.name,
            model=commitment.model,
            session_id=commitment.session_id,
            commitment_sha256=commitment_sha256,
            request_sha256=digest(receipt.request),
            reasoning_tokens=commitment.reasoning_tokens,
            submitted_by=caller,
            drawn=way,
            priority=points,
            receipt=raw,
            leaf=CommitmentLeaf(provider.name, commitment.session_id, commitment_sha256).to_bytes(),
        )

    async def keep(self, submission: Submission) -> Kept:
        """Write a receipt down; it is on disk when this returns.

        Raises:
            TryLaterError: Too many wait already.
            QuotaSpentError: The client has handed in as much as may be, today.
            CommitmentFullError: The same of this commitment, for good.
            StoreUnavailableError: The database does not answer; submit again.
        """
        size = len(submission.receipt)
        if len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            msg = f"{len(self._waiting)} receipts wait for the disk; submit again shortly"
            raise TryLaterError(msg)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future))
        self._bytes += size
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return Kept(submission.audit_id, await future)

    async def _flush(self) -> None:
        """Write what waits, as much at once as has gathered meanwhile."""
        while self._waiting:
            await self._settle(self._next_batch())

    def _next_batch(self) -> _Batch:
        batch: _Batch = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0].receipt)
        self._bytes -= size
        return batch

    async def _settle(self, batch: _Batch) -> None:
        """Write a batch and tell everyone who waits for it."""
        try:
            states = await asyncio.to_thread(self._write, [one for one, _ in batch])
        except TryLaterError as error:
            _refuse(batch, str(error))
        except Exception:  # noqa: BLE001 - told below, where it is known whose it is
            if len(batch) > 1:
                # One that cannot be written must not keep out the others.
                for each in batch:
                    await self._settle([each])
                return
            _LOG.exception("a receipt cannot be kept")
            _refuse(batch, "the receipt cannot be written now; submit it again")
        else:
            self._told(sum(isinstance(state, str) for state in states))
            for (_, future), state in zip(batch, states, strict=True):
                if future.done():
                    continue
                if isinstance(state, str):
                    future.set_result(state)
                else:
                    future.set_exception(_refusal(state))

    def _write(self, batch: Sequence[Submission]) -> list[str | Refused]:
        # One receipt twice in a batch would be two rows.
        once = {one.audit_id: one for one in batch}
        states = keep(
            self._engine,
            list(once.values()),
            lambda first, second: commitment_conflict(first, second, self._providers),
            quota=self._quota,
        )
        of = dict(zip(once, states, strict=True))
        return [of[one.audit_id] for one in batch]

    def _record(self, provider: str) -> float:
        """Return the share of failed audits, read anew once a minute."""
        now = time.monotonic()
        until, share = self._records.get(provider, (0.0, 0.0))
        if now >= until:
            try:
                share = self._failed_share(provider)
            except StoreUnavailableError:
                share = 0.0  # whether the receipt can be kept shows soon enough
            self._records[provider] = (now + _RECORD_SECONDS, share)
        return share


def _refusal(refused: Refused) -> CoinError:
    if refused.seconds is None:
        return CommitmentFullError(refused.why)
    return QuotaSpentError(refused.why, seconds=refused.seconds)


def _refuse(batch: _Batch, why: str) -> None:
    for _, future in batch:
        if not future.done():
            # To each its own: an error that many raise would gather the traces of all.
            future.set_exception(StoreUnavailableError(why))
