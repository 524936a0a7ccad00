"""Audits, one after another or several at once, each to a verdict that is written down once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Engine

from coin_protocol.errors import (
    CoinError,
    ConfigurationError,
    InvalidInputError,
    PeerUnavailableError,
    StoreUnavailableError,
    TryLaterError,
)
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.auditor import Auditor
from verifier_sdk.client import ProviderClient
from verifier_sdk.node.ending import end
from verifier_sdk.node.observe import NodeObserver, failed_check, outcome_of
from verifier_sdk.node.queues import Job, Queue
from verifier_sdk.node.tracing import audit_span
from verifier_sdk.store.claims import Claim, Lease, extend, give_up, keep_progress, postpone
from verifier_sdk.store.verdicts import Remember, Weigher, decide

_LOG = logging.getLogger(__name__)

_AWAY_SECONDS: Final = 2.0
_WRITE_AGAIN_SECONDS: Final = 0.2


class LostClaimError(CoinError):
    """Another worker has the audit by now: this one was away for longer than its lease."""


@dataclass(frozen=True)
class Target:
    """A provider, and the auditor that believes its roots and no other's."""

    auditor: Auditor
    client: ProviderClient


class Worker:
    """Takes audits from a queue until it is told to stop."""

    def __init__(
        self,
        engine: Engine,
        queue: Queue,
        targets: Mapping[str, Target],
        lease: Lease,
        *,
        observer: NodeObserver,
        weigher: Weigher | None,
        remember: Callable[[str, receipt_pb2.Bundle], Remember],
        pauses: Sequence[float],
    ) -> None:
        """Audit for these providers.

        Args:
            engine: Of the node's database.
            queue: Where audits come from.
            targets: By provider's name.
            lease: How audits are claimed.
            observer: Told of what happens.
            weigher: Of p-values over sessions, where the judge gives any.
            remember: What to write into the memory across sessions, given a provider's name and a
                bundle of its.
            pauses: Seconds before each further attempt; there is one more attempt than pauses.
        """
        self._engine = engine
        self._queue = queue
        self._targets = targets
        self._lease = lease
        self._observer = observer
        self._weigher = weigher
        self._remember = remember
        self._pauses = tuple(pauses)

    async def run(self, stop: asyncio.Event) -> None:
        """Audit until `stop` is set; an audit under way is finished first."""
        while not stop.is_set():
            try:
                job = await self._queue.take(self._lease, stop)
            except Exception as error:  # noqa: BLE001 - the next one may be taken
                if isinstance(error, TryLaterError):
                    _LOG.warning("no audits can be taken: %s", error)
                else:
                    _LOG.exception("no audits can be taken", exc_info=error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AWAY_SECONDS):
                        await stop.wait()
                continue
            if job is not None:
                await self.work(job)

    async def work(self, job: Job) -> None:
        """Make one audit, or say when it is to be tried again; raises nothing."""
        claim = job.claim
        began = time.monotonic()
        pulse = asyncio.create_task(self._pulse(job))
        try:
            with audit_span(claim) as span:
                decided = await self._audit(claim)
                if decided is not None:
                    span.decided(decided)
            await job.done()
            if decided is not None:
                seconds = time.monotonic() - began
                self._observer.decided(claim.provider, decided, seconds)
                _log_decided(claim, decided, seconds)
        except LostClaimError:
            # Whoever has it now answers for its message, too.
            _LOG.warning("audit %s was taken over by another worker", claim.audit_id.hex())
        except StoreUnavailableError as error:
            await self._left(job, error)
        except Exception as error:  # noqa: BLE001 - one audit must not end the worker
            await self._failed(job, error)
        finally:
            await end(pulse)

    async def _audit(self, claim: Claim) -> receipt_pb2.Verdict | None:
        """Audit and write the verdict down; None where the audit had one by then."""
        target = self._targets.get(claim.provider)
        if target is None:
            msg = f"provider {claim.provider!r} is not configured here"
            raise ConfigurationError(msg)

        async def keep(bundle: receipt_pb2.Bundle) -> None:
            raw = bundle.SerializeToString()
            if not await self._written(
                partial(keep_progress, self._engine, claim, self._lease, raw)
            ):
                raise LostClaimError

        progress = None if claim.progress is None else receipt_pb2.Bundle.FromString(claim.progress)
        bundle = await target.auditor.audit(
            receipt_pb2.Receipt.FromString(claim.receipt),
            target.client,
            progress=progress,
            keep=keep,
            patient=claim.attempts <= len(self._pauses),
        )
        first = await self._written(
            partial(
                decide,
                self._engine,
                claim,
                bundle,
                worker=self._lease.worker,
                weigher=self._weigher,
                remember=self._remember(claim.provider, bundle),
            )
        )
        return receipt_pb2.Verdict.FromString(bundle.verdict.payload) if first else None

    async def _written(self, write: Callable[[], bool]) -> bool:
        """Write something down, trying again for as long as a lease lasts.

        What was opened is not asked for again for the sake of a database that changes its master.

        Raises:
            StoreUnavailableError: It does not answer for so long.
        """
        end = time.monotonic() + self._lease.seconds
        while True:
            try:
                return await asyncio.to_thread(write)
            except StoreUnavailableError:
                if time.monotonic() + _WRITE_AGAIN_SECONDS > end:
                    raise
            await asyncio.sleep(_WRITE_AGAIN_SECONDS)

    async def _failed(self, job: Job, error: Exception) -> None:
        """Have the audit tried again, or give it up where that cannot help."""
        claim = job.claim
        told = _told(error)
        # Malformed may be what this attempt itself has asked, too late for its deadline, say. The
        # next one leaves that out; where it fails alike, the receipt is at fault.
        malformed = isinstance(error, InvalidInputError)
        hopeless = claim.attempts > len(self._pauses) or (malformed and claim.failure == told)
        if isinstance(error, CoinError):
            _LOG.warning("audit %s: %s", claim.audit_id.hex(), told)
        else:
            _LOG.exception("audit %s failed", claim.audit_id.hex(), exc_info=error)
        self._observer.failed(claim.provider, type(error).__name__, final=hopeless)
        if hopeless:
            write = partial(give_up, self._engine, claim, self._lease, failure=told)
        else:
            write = partial(
                postpone,
                self._engine,
                claim,
                self._lease,
                seconds=0.0 if malformed else self._pauses[claim.attempts - 1],
                failure=told,
            )
        try:
            await asyncio.to_thread(write)
            await job.done()
        except StoreUnavailableError as unavailable:
            await self._left(job, unavailable)

    async def _left(self, job: Job, error: StoreUnavailableError) -> None:
        """Leave an audit as it is: its lease runs out, and it comes up again."""
        _LOG.warning("audit %s is left for later: %s", job.claim.audit_id.hex(), error)
        await job.later(self._lease.seconds)

    async def _pulse(self, job: Job) -> None:
        """Keep the claim while the audit goes on."""
        while True:
            await asyncio.sleep(self._lease.seconds / 4)
            try:
                await job.alive()
                # That the claim was lost shows when something is to be written.
                await asyncio.to_thread(extend, self._engine, job.claim, self._lease)
            except StoreUnavailableError:
                continue
            except Exception:  # noqa: BLE001 - the next one may be given
                _LOG.exception("audit %s: no sign of life", job.claim.audit_id.hex())


def _log_decided(claim: Claim, verdict: receipt_pb2.Verdict, seconds: float) -> None:
    found = {
        "audit": claim.audit_id.hex(),
        "provider": claim.provider,
        "outcome": outcome_of(verdict),
        "tier": receipt_pb2.Tier.Name(verdict.tier).removeprefix("TIER_").lower(),
        "check": failed_check(verdict),
        "seconds": round(seconds, 3),
    }
    _LOG.info("audit decided", extra=found)


def _told(error: Exception) -> str:
    """Return what may be shown of an error: of a bug, that it was one."""
    if isinstance(error, (InvalidInputError, PeerUnavailableError)):
        return str(error)
    if isinstance(error, ConfigurationError):
        return "this node's configuration does not allow the audit; see its log"
    return "internal error; nothing is said of the provider"
