"""The attempts, over gRPC."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from coin_protocol import envelope, statements, transport
from coin_protocol.clock import wall_time
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, PeerUnavailableError, VerificationError
from coin_protocol.keys import read_time
from coin_protocol.keyset import stamp
from coin_protocol.limits import (
    CHALLENGE_NONCE_BYTES,
    FLIP_CHAIN_LENGTH,
    HASH_BYTES,
    MAX_BLOCKS,
    MAX_REASONING_TOKENS,
    MAX_SIGNATURES,
)
from coin_protocol.profile import Profile
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.testing.forgeries import both, put, without
from coin_protocol.testing.malicious_verifier.answers import TURNED_AWAY, Answer, Finding, Target
from coin_protocol.testing.world import Edit
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["ProviderService"].full_name
_ANSWER: Final = f"/{_SERVICE}/AnswerChallenge"
_KEY_SET: Final = f"/{_SERVICE}/GetKeySet"

_REFUSED: Final = "turn it away, and open nothing"
_HARMLESS: Final = "turn it away, or open what is drawn, within the caps, by a link of its own"
_PROOF: Final = "refuse in time, with proof"

_BURST: Final = 32
"""Challenges sent at once."""
_RUN_BLOCKS: Final = 3
"""Of which half the tokens are asked for: single ones would make up a run by chance."""
_HELD_CALLS: Final = 16
"""Calls whose request never comes."""
_BLOATED_BYTES: Final = 1 << 20
"""Of a request: hundreds of times a challenge."""
_PAUSE_SECONDS: Final = 0.05
_YEAR_SECONDS: Final = 31_536_000.0
_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999."""
_DEADLINE: Final = timedelta(minutes=1)

_MALFORMED: Final[Mapping[str, Edit[Any]]] = {
    "no blocks": without("blocks"),
    "token blocks and no tokens": both(put("token_blocks", 1), without("tokens_per_block")),
    "2^32 - 1 blocks": put("blocks", 2**32 - 1),
    "2^32 - 1 tokens of each": put("tokens_per_block", 2**32 - 1),
    "no round": without("round"),
    "a round past the chain": put("round", FLIP_CHAIN_LENGTH + 1),
    "a short nonce": put("nonce", bytes(CHALLENGE_NONCE_BYTES - 1)),
    "a long nonce": put("nonce", bytes(CHALLENGE_NONCE_BYTES + 1)),
    "no name": without("verifier"),
    "no fingerprints": without("fingerprints_sha256"),
    "no deadline": without("deadline"),
    "a deadline that is no time": put("deadline.seconds", 2**60),
    "a deadline in the year 1": put("deadline.seconds", 1 - 62_135_596_800),
}

_ALTERED: Final[Mapping[str, Edit[Any]]] = {
    "another round": put("round", 2),
    "a block more": put("token_blocks", 2),
    "a token more": put("tokens_per_block", 2),
    "a deadline in the year 9999": put("deadline.seconds", _LAST_SECOND),
    "another name": put("verifier", "somebody else"),
}

T = TypeVar("T")


class MaliciousVerifier:
    """Attempts against one provider at HOST:PORT. Use as an async context manager."""

    def __init__(
        self,
        target: str,
        *,
        tls: transport.ClientTls | None,
        profile: Profile,
        receipts: tuple[receipt_pb2.Receipt, receipt_pb2.Receipt],
        signers: tuple[Signer, Signer],
        seconds: float = 30.0,
    ) -> None:
        """Name the provider; nothing is sent yet.

        Args:
            target: HOST:PORT.
            tls: As `transport.open_channel` takes it.
            profile: What the commitments are made of.
            receipts: Of two replies with reasoning that nobody has challenged, nor will meanwhile.
            signers: Two keys that the provider takes challenges from.
            seconds: Patience with one call, and with one that the provider must end.
        """
        self._profile = profile
        self._receipts = receipts
        self._signers = signers
        self._seconds = seconds
        self._channel = transport.open_channel(target, tls)
        self._stub = pb_grpc.ProviderServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Return the verifier."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        await self._channel.close()

    async def attempt_all(self) -> list[Finding]:
        """Try everything, in an order that leaves each attempt what it needs.

        Raises:
            InvalidInputError: A receipt is none of a reply with reasoning.
            PeerUnavailableError: A manifest is not to be had.
        """
        first, second = [await self._target(receipt) for receipt in self._receipts]
        return [
            *[finding async for finding in self._signatures(first)],
            *[finding async for finding in self._forms(first)],
            *[finding async for finding in self._kinds(first)],
            *[finding async for finding in self._bytes(first)],
            *[finding async for finding in self._places(first, second)],
            await self._after_these(first),
            await self._repeats(first),
            *[finding async for finding in self._alters(first)],
            await self._aims(first),
            await self._runs(second),
            *[finding async for finding in self._too_much(second)],
            await self._at_once(second),
            await self._on_and_on("blocks", first, self._challenge),
            await self._on_and_on("whole blocks", first, self._whole_challenge),
            await self._on_and_on("embeddings alone", first, self._bare_challenge),
            *[finding async for finding in self._endless_calls()],
        ]

    # Challenges that are none

    async def _signatures(self, at: Target) -> AsyncIterator[Finding]:
        sound, stranger = self._challenge(at), KeySigner.generate("a stranger")
        unsigned = envelope_pb2.Envelope(payload=sound.payload, payload_type=sound.payload_type)
        posing = self._challenge(at, stranger)
        posing.signatures[0].keyid = sound.signatures[0].keyid
        changed = self._challenge(at)
        changed.payload = sound.payload
        for how, challenge in (
            ("unsigned", unsigned),
            ("signed by a stranger", self._challenge(at, stranger)),
            ("signed by a stranger who names a verifier's key", posing),
            ("changed after it was signed", changed),
        ):
            yield await self._must_not_answer(f"a challenge {how}", at, challenge)

    async def _forms(self, at: Target) -> AsyncIterator[Finding]:
        payloads = {
            "nothing in it": b"",
            "bytes that are no protobuf": b"\xff\xff",
            "a field that version 1 does not know": b"\xf8\x01\x01",
        }
        for what, edit in _MALFORMED.items():
            message = self._message(at)
            edit(message)
            payloads[what] = message.SerializeToString()
        for what, payload in payloads.items():
            challenge = envelope.sign(payload, envelope.CHALLENGE, self._signers[0])
            yield await self._must_not_answer(f"a challenge with {what}", at, challenge)

    async def _kinds(self, at: Target) -> AsyncIterator[Finding]:
        opening = self._signed(self._message(at), envelope.OPENING)
        for attempt, challenge, whole in (
            ("a challenge typed as an opening", opening, False),
            ("a challenge sent as one of whole blocks", self._challenge(at), True),
            ("a challenge of whole blocks sent as another", self._whole_challenge(at), False),
        ):
            yield await self._must_not_answer(attempt, at, challenge, whole=whole)

    async def _bytes(self, at: Target) -> AsyncIterator[Finding]:
        crowded = self._challenge(at)
        crowded.signatures.extend([crowded.signatures[0]] * MAX_SIGNATURES)
        attempt = f"a challenge with {len(crowded.signatures)} signatures"
        yield await self._must_not_answer(attempt, at, crowded)
        request = pb.AnswerChallengeRequest(
            commitment_sha256=at.sha256, challenge=self._challenge(at)
        )
        sound = request.SerializeToString()
        request.challenge.signatures.add(keyid="x", sig=bytes(_BLOATED_BYTES))
        for attempt, raw in (
            ("a request without bytes", b""),
            ("a request of bytes that are none", b"\xff" * 9),
            ("half a request", sound[: len(sound) // 2]),
            ("a request of a MiB", request.SerializeToString()),
        ):
            status = await self._status_of(_ANSWER, raw)
            yield Finding(attempt, _REFUSED, status, status in TURNED_AWAY)

    async def _places(self, at: Target, other: Target) -> AsyncIterator[Finding]:
        attempt = "a challenge to another commitment's fingerprints"
        yield await self._must_not_answer(attempt, at, self._challenge(other))
        answer = await self._send(secrets.token_bytes(HASH_BYTES), self._challenge(at))
        attempt = "a challenge to a commitment that there is not"
        yield Finding(attempt, _REFUSED, answer.status, answer.turned_away)
        past = self._message(at)
        past.deadline.CopyFrom(stamp(read_time(wall_time()) - timedelta(hours=1)))
        challenge = self._signed(past, envelope.CHALLENGE)
        yield await self._must_not_answer("a challenge an hour past its deadline", at, challenge)

    async def _after_these(self, at: Target) -> Finding:
        challenge = self._light_challenge(at)
        faults = at.faults(challenge, await self._send(at.sha256, challenge))
        if not faults and list(at.used) != [1]:
            faults = [f"its link is number {list(at.used)}: what was turned away cost links"]
        return _finding("a sound challenge after all these", "give it the first link", faults)

    # Aims

    async def _repeats(self, at: Target) -> Finding:
        challenge = self._light_challenge(at)
        first = await self._send(at.sha256, challenge)
        faults = at.faults(challenge, first)
        padded = envelope_pb2.Envelope()
        padded.CopyFrom(challenge)
        padded.signatures.add(keyid="x", sig=b"x")
        for again in (challenge, padded):
            answer = await self._send(at.sha256, again)
            faults += at.faults(again, answer)
            if not faults and _opened(answer) != _opened(first):
                faults.append("it opened something else")
        return _finding("the same challenge again", "open the same, by the same link", faults)

    async def _alters(self, at: Target) -> AsyncIterator[Finding]:
        sound = self._light_message(at)
        yield await self._must_be_harmless("a nonce", at, sound)
        for what, edit in _ALTERED.items():
            altered = opening_pb2.Challenge()
            altered.CopyFrom(sound)
            edit(altered)
            yield await self._must_be_harmless(f"the same nonce with {what}", at, altered)
        attempt = "the same nonce and the later deadline under another verifier's key"
        sound.deadline.seconds += 1
        yield await self._must_be_harmless(attempt, at, sound, self._signers[1])

    async def _aims(self, at: Target) -> Finding:
        """Pick a nonce by which the last link that is known would draw the first block."""
        attempt, wanted = "a nonce aimed at a block", "give it a link that nobody knows yet"
        if not at.used:
            return _finding(attempt, wanted, ["nothing was answered, so that no link is known"])
        last = max(at.used)
        message = self._light_message(at)
        while at.drawn(message, at.used[last][1]).token_blocks[0].index != 0:
            message.nonce = secrets.token_bytes(CHALLENGE_NONCE_BYTES)
        challenge = self._signed(message, envelope.CHALLENGE)
        faults = at.faults(challenge, await self._send(at.sha256, challenge))
        aimed = digest(challenge.payload)
        given = [index for index, (served, _) in at.used.items() if served == aimed]
        if given and given[0] <= last:
            faults.append(f"it was given link {given[0]}, which link {last} gives away")
        return _finding(attempt, wanted, faults)

    # Too much

    async def _runs(self, at: Target) -> Finding:
        left = at.caps.tokens - len(at.shown.tokens) - at.shown.edge_cost
        each = max(1, min(left // _RUN_BLOCKS, max(at.counts) // 2))
        message = self._message(at, blocks=0, token_blocks=_RUN_BLOCKS, tokens_per_block=each)
        return await self._must_be_harmless(f"half the tokens of {_RUN_BLOCKS} blocks", at, message)

    async def _too_much(self, at: Target) -> AsyncIterator[Finding]:
        message = self._message(at, blocks=MAX_BLOCKS, tokens_per_block=0)
        yield await self._must_be_harmless("every block at once", at, message)
        message = self._message(
            at, blocks=0, token_blocks=MAX_BLOCKS, tokens_per_block=MAX_REASONING_TOKENS
        )
        yield await self._must_be_harmless("every token at once", at, message)
        challenge = self._whole_challenge(at, blocks=MAX_BLOCKS)
        faults = at.faults(challenge, await self._send(at.sha256, challenge))
        yield _finding("every block whole at once", _HARMLESS, faults)

    async def _at_once(self, at: Target) -> Finding:
        """Send challenges of both verifiers and both kinds, without waiting for any."""
        challenges = [
            (self._whole_challenge if number % 4 > 2 else self._challenge)(
                at, self._signers[number % 2]
            )
            for number in range(_BURST)
        ]
        answers = await asyncio.gather(*(self._send(at.sha256, each) for each in challenges))
        faults = [
            fault
            for challenge, answer in zip(challenges, answers, strict=True)
            for fault in at.faults(challenge, answer)
        ]
        return _finding(f"{_BURST} challenges of two verifiers at once", _HARMLESS, faults)

    async def _on_and_on(
        self, what: str, at: Target, make: Callable[[Target, Signer], envelope_pb2.Envelope]
    ) -> Finding:
        """Ask by turns as two verifiers, until the provider refuses."""
        attempt = f"{what} asked for without end, by two verifiers in turn"
        for number in range(FLIP_CHAIN_LENGTH + 1):
            challenge = make(at, self._signers[number % 2])
            answer = await self._send(at.sha256, challenge)
            faults = at.faults(challenge, answer)
            if answer.opening is None and answer.refusal is None:
                faults.append(f"no signed refusal came, but {answer.status}")
            if faults or answer.opening is None:
                return _finding(attempt, _PROOF, faults)
        faults = [f"{FLIP_CHAIN_LENGTH + 1} challenges were answered, and none refused"]
        return _finding(attempt, _PROOF, faults)

    # Calls

    async def _endless_calls(self) -> AsyncIterator[Finding]:
        wanted = f"end it within {self._seconds:g} s"
        silence = asyncio.Event()

        async def nothing() -> AsyncIterator[bytes]:
            await silence.wait()
            yield b""

        streamed: Any = self._channel.stream_unary(_KEY_SET)
        held = [streamed(nothing()) for _ in range(_HELD_CALLS)]
        try:
            status = await self._status_of(_KEY_SET, b"")
            attempt = f"a call beside {_HELD_CALLS} whose request never comes"
            yield Finding(attempt, "answer it", status, status == "OK")
            ended = await asyncio.gather(*map(self._ends, held))
        finally:
            silence.set()
            for call in held:
                call.cancel()
        found = f"{sum(ended)} of {len(ended)} ended"
        yield Finding("a call whose request never comes", wanted, found, all(ended))
        call = self._channel.unary_unary(_KEY_SET)
        for how, seconds in (("without a deadline", None), ("of a year", _YEAR_SECONDS)):
            ends = await self._ends(call(b"", timeout=seconds))
            yield Finding(f"a call {how}", wanted, "it ended" if ends else "it goes on", ends)

    async def _ends(self, call: Awaitable[object]) -> bool:
        """Say whether the provider ends a call, however it does."""
        try:
            await asyncio.wait_for(call, self._seconds)
        except aio.AioRpcError:
            return True
        except TimeoutError:
            return False
        return True

    # What all attempts share

    async def _must_not_answer(
        self,
        attempt: str,
        at: Target,
        challenge: envelope_pb2.Envelope,
        *,
        whole: bool = False,
    ) -> Finding:
        answer = await self._send(at.sha256, challenge, whole=whole)
        return Finding(attempt, _REFUSED, answer.status, answer.turned_away)

    async def _must_be_harmless(
        self,
        attempt: str,
        at: Target,
        message: opening_pb2.Challenge,
        signer: Signer | None = None,
    ) -> Finding:
        challenge = self._signed(message, envelope.CHALLENGE, signer)
        faults = at.faults(challenge, await self._send(at.sha256, challenge))
        return _finding(attempt, _HARMLESS, faults)

    def _message(
        self, at: Target, *, blocks: int = 1, token_blocks: int = 0, tokens_per_block: int = 2
    ) -> opening_pb2.Challenge:
        return opening_pb2.Challenge(
            fingerprints_sha256=at.fingerprints_sha256,
            verifier=self._signers[0].public.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=blocks,
            token_blocks=token_blocks,
            tokens_per_block=tokens_per_block,
            deadline=stamp(read_time(wall_time()) + _DEADLINE),
        )

    def _light_message(self, at: Target) -> opening_pb2.Challenge:
        """Return a challenge of one token: the caps are for later."""
        return self._message(at, blocks=0, token_blocks=1, tokens_per_block=1)

    def _challenge(self, at: Target, signer: Signer | None = None) -> envelope_pb2.Envelope:
        return self._signed(self._message(at), envelope.CHALLENGE, signer)

    def _light_challenge(self, at: Target) -> envelope_pb2.Envelope:
        return self._signed(self._light_message(at), envelope.CHALLENGE)

    def _bare_challenge(self, at: Target, signer: Signer) -> envelope_pb2.Envelope:
        return self._signed(self._message(at, tokens_per_block=0), envelope.CHALLENGE, signer)

    def _whole_challenge(
        self, at: Target, signer: Signer | None = None, *, blocks: int = 1
    ) -> envelope_pb2.Envelope:
        message = opening_pb2.WholeBlockChallenge(
            fingerprints_sha256=at.fingerprints_sha256,
            verifier=self._signers[0].public.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=blocks,
            deadline=stamp(read_time(wall_time()) + _DEADLINE),
        )
        return self._signed(message, envelope.WHOLE_CHALLENGE, signer)

    def _signed(
        self, message: Message, payload_type: str, signer: Signer | None = None
    ) -> envelope_pb2.Envelope:
        payload = message.SerializeToString()
        return envelope.sign(payload, payload_type, signer or self._signers[0])

    async def _target(self, receipt: receipt_pb2.Receipt) -> Target:
        """Ask for a commitment's manifest; believe what it says, for it is the provider's own."""
        sha256 = digest(receipt.commitment.payload)
        request = pb.GetManifestRequest(commitment_sha256=sha256)
        try:
            reply = await self._patiently(
                lambda seconds: self._stub.GetManifest(request, timeout=seconds)
            )
        except aio.AioRpcError as error:
            status = error.code().name
            msg = f"no manifest of {sha256.hex()} ({status}): give receipts of this provider"
            raise PeerUnavailableError(msg, status=status) from error
        try:
            commitment = statements.read_commitment(receipt.commitment.payload)
            keys = statements.read_key_set(receipt.key_set.payload)
            manifest = statements.read_manifest(transport.parsed(reply).manifest.payload)
        except VerificationError as error:
            raise InvalidInputError(str(error)) from error
        if not manifest.blocks:
            msg = (
                f"commitment {sha256.hex()} is to no reasoning: give receipts of replies with some"
            )
            raise InvalidInputError(msg)
        return Target(
            sha256=sha256,
            fingerprints_sha256=digest(reply.fingerprints.payload),
            anchor=commitment.flip_anchor,
            counts=[entry.token_count for entry in manifest.blocks],
            profile=self._profile,
            keys=keys,
        )

    async def _send(
        self,
        commitment_sha256: bytes,
        challenge: envelope_pb2.Envelope,
        *,
        whole: bool | None = None,
    ) -> Answer:
        """Send a challenge, as one of its own kind unless `whole` says which."""
        if whole is None:
            whole = challenge.payload_type == envelope.WHOLE_CHALLENGE
        fields: Any = {"commitment_sha256": commitment_sha256, "challenge": challenge}
        call: Any
        if whole:
            call, request = self._stub.AnswerWholeBlockChallenge, _WHOLE_REQUEST(**fields)
        else:
            call, request = self._stub.AnswerChallenge, _REQUEST(**fields)
        try:
            reply = await self._patiently(lambda seconds: call(request, timeout=seconds))
        except aio.AioRpcError as error:
            detail = transport.details_of(error, pb.RefusalDetail())
            return Answer(error.code().name, refusal=detail and detail.refusal)
        if reply is None:  # grpc gives that for bytes that do not parse
            return Answer("DOES_NOT_PARSE")
        return Answer("OK", opening=reply.opening)

    async def _status_of(self, method: str, request: bytes) -> str:
        call: Any = self._channel.unary_unary(method)
        try:
            await self._patiently(lambda seconds: call(request, timeout=seconds))
        except aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def _patiently(self, call: Callable[[float], Awaitable[T]]) -> T:
        """Make a call, and again where the provider says to come again, until patience ends."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        while True:
            try:
                return await call(max(end - loop.time(), _PAUSE_SECONDS))
            except aio.AioRpcError as error:
                delay = transport.quota_delay(error)
                if delay is None and error.code() == grpc.StatusCode.UNAVAILABLE:
                    delay = _PAUSE_SECONDS
                if delay is None or loop.time() + delay > end:
                    raise
                await asyncio.sleep(delay)


_REQUEST: Final[Any] = pb.AnswerChallengeRequest
_WHOLE_REQUEST: Final[Any] = pb.AnswerWholeBlockChallengeRequest


def _finding(attempt: str, wanted: str, faults: Sequence[str]) -> Finding:
    found = "; ".join(dict.fromkeys(faults)) or "so it did"
    return Finding(attempt, wanted, found, not faults)


def _opened(answer: Answer) -> object:
    """Return what an answer opened, without the time that it is dated."""
    if answer.opening is None:
        return answer.status
    opening = opening_pb2.Opening.FromString(answer.opening.payload)
    opening.ClearField("provider_time")
    return opening
