"""What must hold once the killing is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from benchmarks._faults import database
from benchmarks._faults.auditors import Auditors, Held
from benchmarks._faults.children import Child
from benchmarks._faults.clients import Fate, Load, Reply, ask_again
from benchmarks._faults.house import LEASE_SECONDS, House, script
from coin_protocol import statements
from coin_protocol.checks import Case, run_checks
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError
from coin_protocol.v1 import delivery_pb2, receipt_pb2, statements_pb2
from provider_sdk.store.tables import COMMITTED, OPEN
from tests.support.upstreams import CLOSE
from verifier_sdk.client import ProviderClient

_RECOVERY_SECONDS: Final = 6 * LEASE_SECONDS
_FINGERPRINT_SECONDS: Final = 180.0
_CALL_SECONDS: Final = 10.0
_ABORT_SECONDS: Final = 3.0
"""To note that a client has hung up: a gateway killed within it may not have noted it."""
_LATE_SECONDS: Final = 5.0
"""A commitment that was late for its reply is on disk by then: no write is held up for longer."""
_AT_ONCE: Final = 8

_WHOLE: Final = statements_pb2.ABORT_REASON_UNSPECIFIED
_CRASHED: Final = statements_pb2.ABORT_REASON_CRASHED
_HUNG_UP: Final = statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED

_ENDS: Final = {
    Fate.WHOLE: frozenset({_WHOLE}),
    # The end may have come to disk and not to the client.
    Fate.BROKEN: frozenset({_CRASHED, _WHOLE}),
    Fate.HUNG_UP: frozenset({_HUNG_UP, _CRASHED, _WHOLE}),
}


@dataclass(frozen=True)
class Violation:
    """A property that does not hold.

    Attributes:
        what: The property.
        session: Session id in hex; a reply's id, or a process, where there is none.
        detail: What was found.
    """

    what: str
    session: str
    detail: str


@dataclass
class Findings:
    """What was found afterwards.

    Attributes:
        violations: Properties that do not hold.
        counts: Of what was looked at.
    """

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def violated(self, what: str, session: str, detail: str) -> None:
        """Note a property that does not hold."""
        self.violations.append(Violation(what, session, detail))


@dataclass(frozen=True)
class Choice:
    """One choice of a reply: what its client holds, and what is kept of it now.

    Attributes:
        reply: Whose.
        number: In the reply.
        given: As it came with the reply; None where nothing came.
        again: The reply's delivery, asked for again afterwards; None where there is none.
    """

    reply: Reply
    number: int
    given: delivery_pb2.DeliveredChoice | None
    again: delivery_pb2.Delivery | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.reply.response_id}/{self.number}"

    @property
    def kept(self) -> delivery_pb2.DeliveredChoice | None:
        """As kept, where there is a commitment to it."""
        for choice in self.again.choices if self.again is not None else ():
            if choice.choice == self.number and choice.HasField("commitment"):
                return choice
        return None

    @property
    def held(self) -> bool:
        """Whether the client holds its commitment."""
        return self.given is not None and self.given.HasField("commitment")

    @property
    def never_came(self) -> bool:
        """Whether its reply said that there is no receipt yet, and the gateway died right then."""
        late = delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE
        said = self.given is not None and self.given.missing == late
        killed = self.reply.life.killed_at
        return said and killed is not None and killed <= self.reply.ended + _LATE_SECONDS

    @property
    def must_be_kept(self) -> bool:
        """Whether the client holds, or has asked for, what cannot be gone."""
        reply = self.reply
        if self.held or self.number in reply.checkpoints:
            return True
        if reply.fate is Fate.WHOLE:
            return not self.never_came
        killed = reply.life.killed_at
        lived = killed is None or killed > reply.ended + _ABORT_SECONDS
        return reply.fate is Fate.HUNG_UP and self.number in reply.texts and lived

    @property
    def answer(self) -> str:
        """What the model said."""
        return script(self.reply.question, self.number).answer


class Afterwards:
    """Looks at everything that clients and auditors hold."""

    def __init__(
        self,
        house: House,
        gateway: Child,
        service: Child,
        load: Load,
        auditors: Auditors,
    ) -> None:
        """Prepare; `run` looks.

        Args:
            house: Whose rules and keys are checked by.
            gateway: Asked for every reply again.
            service: Asked for every manifest.
            load: What clients hold.
            auditors: What auditors hold.
        """
        self.found = Findings()
        self._house = house
        self._gateway = gateway
        self._service = service
        self._load = load
        self._auditors = auditors
        self._installed = house.models.tokenizer, house.models.embedder

    async def run(self) -> Findings:
        """Look, and return what was found."""
        found = self.found
        for reply in self._load.replies:
            self._unbroken(reply)
        for what, count in self._auditors.strange.items():
            found.violated("a challenge is answered or refused", what, f"{count} times")
        await self._settled()
        await self._held()
        return found

    def _unbroken(self, reply: Reply) -> None:
        """Note a reply that broke, and not by a kill of what carried it."""
        self.found.counts[f"replies_{reply.fate}"] += 1
        ended_well = reply.fate in (Fate.WHOLE, Fate.HUNG_UP)
        if not ended_well and not reply.by_kill:
            name = reply.response_id or f"question {reply.question}"
            self.found.violated("no reply breaks of itself", name, f"{reply.fate}: {reply.why}")

    async def _settled(self) -> None:
        """Wait until every session is closed and has its fingerprints; note those that are not."""
        left = await self._left({OPEN}, _RECOVERY_SECONDS)
        for session in left:
            self.found.violated("no session stays open", session.hex(), "open")
        left = await self._left({COMMITTED}, _FINGERPRINT_SECONDS)
        for session in left:
            self.found.violated("every session gets fingerprints", session.hex(), "committed")

    async def _left(self, states: set[str], seconds: float) -> list[bytes]:
        """Wait until no session is in these states; return those that still are in the end."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            found = await asyncio.to_thread(database.states, self._house.url)
            left = [session for session, state in found.items() if state in states]
            if not left or loop.time() > end:
                self.found.counts["sessions"] = len(found)
                return left
            await asyncio.sleep(0.5)

    async def _held(self) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)
        target = (await self._service.ready()).target
        async with (
            aiohttp.ClientSession() as session,
            ProviderClient(target, tls=None, timeout=_CALL_SECONDS) as client,
        ):

            async def look(reply: Reply) -> None:
                async with gate:
                    await self._reply(session, client, reply)

            await asyncio.gather(*map(look, self._load.replies))

    async def _reply(
        self, session: aiohttp.ClientSession, client: ProviderClient, reply: Reply
    ) -> None:
        """Check every choice of a reply that left anything with its client."""
        found = self.found
        found.counts["checkpoints_held"] += sum(map(len, reply.checkpoints.values()))
        if not reply.response_id:
            if reply.checkpoints:
                found.violated("a checkpoint is found by its reply", reply.key, "no response id")
            return
        again = await ask_again(session, self._gateway, reply)
        given = {} if reply.delivery is None else {c.choice: c for c in reply.delivery.choices}
        for number in range(reply.choices):
            choice = Choice(reply, number, given.get(number), again)
            try:
                await self._choice(client, choice)
            except CoinError as error:
                detail = f"{type(error).__name__}: {error}"
                found.violated("what is held stays true", choice.name, detail)

    async def _choice(self, client: ProviderClient, choice: Choice) -> None:
        found, reply, given = self.found, choice.reply, choice.given
        if reply.fate is Fate.WHOLE:
            text = "".join(reply.texts.get(choice.number, ()))
            if text != choice.answer:
                detail = f"{text!r}, wanted {choice.answer!r}"
                found.violated("a whole reply is whole", choice.name, detail)
        found.counts["receipts_held"] += choice.held
        if given is not None and given.missing:
            found.counts["receipts_late"] += 1
            if given.missing != delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE:
                why = delivery_pb2.MissingReason.Name(given.missing)
                found.violated("a whole reply has a receipt", choice.name, why)
        kept = choice.kept
        if kept is None:
            if choice.must_be_kept:
                found.violated(
                    "no receipt is lost", choice.name, f"{reply.fate}: asked again, none"
                )
            return
        if choice.held and given is not None and given.commitment != kept.commitment:
            found.violated("no receipt is lost", choice.name, "asked again, it is another")
        await self._commitment(client, choice, kept)

    async def _commitment(
        self, client: ProviderClient, choice: Choice, kept: delivery_pb2.DeliveredChoice
    ) -> None:
        """Check a commitment with all that is held of it, and two more challenges."""
        found, key = self.found, digest(kept.commitment.payload)
        statement = statements.read_commitment(kept.commitment.payload)
        name = statement.session_id.hex()
        if choice.never_came and statement.abort_reason == _CRASHED:
            found.counts["receipts_never"] += 1
        for detail in _unfitting(choice, statement):
            found.violated("a session ends as its reply did", name, detail)
        manifest, fingerprints = await client.manifest(key)
        held = self._auditors.held.get(key) or Held(fingerprints)
        found.counts["openings_held"] += held.openings
        found.counts["refusals_held"] += held.refusals
        if statement.reasoning_tokens:
            await self._challenged(key, held, statement)
        receipt = _receipt(choice, kept, whole=statement.abort_reason == _WHOLE)
        receipt.fingerprints.CopyFrom(fingerprints)
        case = Case(
            receipt=receipt,
            trust=self._house.trust,
            profile=self._house.profile,
            policy=self._house.policy,
            manifest=manifest,
            rounds=held.rounds,
            whole_rounds=held.whole_rounds,
            installed=self._installed,
        )
        for what, detail in await asyncio.to_thread(lambda: [*_unsound(case)]):
            found.violated(what, name, detail)
        found.counts["commitments_checked"] += 1

    async def _challenged(
        self, key: bytes, held: Held, statement: statements_pb2.Commitment
    ) -> None:
        """Ask for a little, and then for more than is allowed: the refusal shows the ledger."""
        for blocks, tokens in ((1, 2), (statement.block_count, self._house.profile.block_size)):
            challenge = self._auditors.signed(
                held.fingerprints, blocks=blocks, tokens_per_block=tokens
            )
            if await self._auditors.ask(key, held, challenge) is None:
                name = statement.session_id.hex()
                self.found.violated("a challenge is answered or refused", name, "no answer")


def _unfitting(choice: Choice, statement: statements_pb2.Commitment) -> Iterator[str]:
    """Yield what of a commitment does not fit the reply that the client saw."""
    ends = _ENDS.get(choice.reply.fate, frozenset())
    if choice.never_came:
        ends |= {_CRASHED}
    if statement.abort_reason not in ends:
        yield f"{choice.reply.fate}: {statements_pb2.AbortReason.Name(statement.abort_reason)}"
    tokens = len(script(choice.reply.question, choice.number).reasoning_ids)
    whole, count = statement.abort_reason == _WHOLE, statement.reasoning_tokens
    # A marker that was cut off could have become anything, and counts as reasoning.
    if count > tokens + (0 if whole else len(CLOSE) - 1) or (whole and count != tokens):
        yield f"{count} tokens are committed to, the model made {tokens}"


def _receipt(
    choice: Choice, kept: delivery_pb2.DeliveredChoice, *, whole: bool
) -> receipt_pb2.Receipt:
    """Return the client's receipt, with the commitment of its session."""
    source = choice.reply.delivery if choice.held else choice.again
    served = delivery_pb2.Delivery() if source is None else source
    receipt = choice.reply.recorders[choice.number].finish(
        commitment=kept.commitment, key_set=served.key_set, root_chain=served.root_chain
    )
    if whole and choice.reply.fate is not Fate.WHOLE:
        # The end is committed to, and did not come through.
        receipt.answer = choice.answer.encode()
    return receipt


def _unsound(case: Case) -> Iterator[tuple[str, str]]:
    """Yield every property of a commitment that does not hold."""
    report = run_checks(case)
    if report.failed is not None:
        yield f"check {report.failed.code} passes", report.detail
        return
    wanted = ["SIGNATURE", "MANIFEST_ROOT", "FINGERPRINTS"]
    wanted += ["CHECKPOINT_PREFIX"] if case.receipt.checkpoints else []
    for code in wanted:
        if not report.passed(code):
            yield f"check {code} passes", "it did not run"
    ledger, caps = case.ledger, case.caps
    for what, count, cap in (
        ("tokens", len(ledger.tokens), caps.tokens),
        ("block embeddings", len(ledger.block_embeddings), caps.block_embeddings),
        ("whole blocks", len(ledger.whole_blocks), caps.whole_blocks),
    ):
        if count > cap:
            yield "no ledger is passed", f"{count} {what} are open, the cap is {cap}"
    opened = {digest(each.entry.challenge.payload) for each in case.openings}
    opened |= {digest(each.entry.challenge.payload) for each in case.whole_openings}
    # The last challenge asked for more than is allowed: its refusal shows the whole ledger.
    for last in case.rounds[-1:]:
        refusal = (
            statements.read_refusal(last.refusal.payload) if last.HasField("refusal") else None
        )
        entered = (
            {digest(each.challenge.payload) for each in refusal.answered} if refusal else opened
        )
        if missing := opened - entered:
            yield "the ledger holds every opening", f"{len(missing)} are not in it"
