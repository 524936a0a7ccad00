"""Drive a provider's challenge service over gRPC, and hold what it says against the protocol.

Operations, with the fields of a case's `input` and `expect`:

* `health`: `service`; expects `status`. `reflection`: expects `services`.
* `anonymous`: a call without certificate and token; expects `status`.
* `key_set`: it is `rooted`, and lists a key that is valid now; `keys_kept`: all `kept` of receipts.
* `receipt`: the checks named in `passed` hold of each; `timed`: checkpoints came `spread`.
* `manifest`: it comes and `holds`, for each receipt; `manifest_again`: the `same` comes again.
* `call`: one request, malformed or not (`Malformed`); expects `status`, and `reason` if given.
* `challenge`: `blocks`, `token_blocks`, `tokens_per_block`, `times`; `again`: the same twice;
  `at_once`: `times` of them together; `whole`: `blocks`, and `models` to embed them again. What
  comes `holds`.
* `past_caps`: more than any cap allows is `refused`, and costs nothing; `caps`: `of` what; as much
  as the cap allows comes, and what could pass it is `refused`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from coin_protocol.checks import rooted_keys
from coin_protocol.conformance.case import Case
from coin_protocol.conformance.challenging import (
    LAST_OPENED,
    LAST_PREPARED,
    LAST_WHOLE,
    NO_KEY,
    SERVICE,
    Challenger,
    ProviderSetting,
)
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.conformance.malformed import Malformed
from coin_protocol.conformance.replies import (
    Asked,
    Reply,
    fits,
    require_checks,
    require_readable,
    require_sound,
)
from coin_protocol.conformance.wire import Wire, require_health, require_services, require_status
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.keyset import SignedKeySet
from coin_protocol.statements import read_opening
from coin_protocol.tiers import untimed_reason
from coin_protocol.v1 import envelope_pb2
from coin_protocol.v1 import provider_service_pb2 as pb

_ROUNDS: Final = 64
"""Challenges after which no cap is waited for any more: all that one reply answers."""

_NOT_REACHED: Final = "what is drawn again and again keeps this reply below its cap"
_CAP_ADVICE: Final = (
    "Refuse by what a challenge could open, as if nothing it draws were open already, and count "
    "the last token once (protocol, section 6)."
)


class ProviderDriver:
    """Performs cases of kind `provider`."""

    def __init__(self, wire: Wire, setting: ProviderSetting) -> None:
        """Drive the target of a wire."""
        self._wire = wire
        self._setting = setting
        self._challenger = Challenger(wire, setting)

    async def perform(self, case: Case) -> None:
        """Put a case to the target.

        Raises:
            NotMet: The target does otherwise.
            NotApplicable: It cannot be put to this target, or with what was given.
        """
        await OPERATIONS[case.operation](self, case)

    async def health(self, case: Case) -> None:
        """Ask for a service's health."""
        await require_health(self._wire, case)

    async def reflection(self, case: Case) -> None:
        """Ask which services there are."""
        await require_services(self._wire, case)

    async def anonymous(self, case: Case) -> None:
        """Call as somebody whom nobody knows."""
        if self._setting.anonymous is None:
            msg = "the target is reached in plaintext, where nobody says who calls"
            raise NotApplicable(msg)
        async with self._setting.anonymous() as channel:
            wire = Wire(channel, self._wire.target, self._wire.seconds)
            answer = await wire.call(f"{SERVICE}/GetKeySet", b"")
        require_status(answer, case.expect, "GetKeySet")

    async def key_set(self, case: Case) -> None:
        """Ask for the key set."""
        del case
        served = await self._served()
        now = datetime.now(UTC)
        try:
            ring = rooted_keys(served, self._setting.trust, lambda _: now)
        except VerificationError as error:
            raise NotMet(
                wanted="a key set that a pinned root, or a certificate of the domain, signed",
                came=str(error),
                advice="Pin the right root (--root, --root-domain), or sign the key set with it.",
            ) from error
        if not any(listed.is_valid(now) for listed in ring.keys):
            raise NotMet(
                wanted="a key whose window holds now",
                came=f"{len(ring)} keys, none of them valid at {now.isoformat()}",
            )

    async def keys_kept(self, case: Case) -> None:
        """Compare the key set with those of receipts."""
        del case
        served, trust = await self._served(), self._setting.trust
        try:
            ring = rooted_keys(served, trust)
        except VerificationError as error:
            msg = f"the served key set is not rooted: {error}"
            raise NotApplicable(msg) from error
        compared = False
        for reply in await self._challenger.some_replies():
            try:
                older = rooted_keys(reply.bare.served, trust)
            except VerificationError:
                continue
            compared = True
            lost = sum(ring.find(one.key.keyid) is None for one in older.keys)
            if older.owner != ring.owner or lost or ring.sequence < older.sequence:
                raise NotMet(
                    wanted=f"the key set of {older.owner!r}, sequence {older.sequence} or later, "
                    "with every key that it ever listed",
                    came=f"that of {ring.owner!r}, sequence {ring.sequence}, {lost} keys left out",
                )
        if not compared:
            msg = "no receipt has a key set that is rooted"
            raise NotApplicable(msg)

    async def receipt(self, case: Case) -> None:
        """Check receipts."""
        for reply in await self._challenger.some_replies():
            require_checks(reply.bare, case.expect["passed"])

    async def timed(self, case: Case) -> None:
        """Look at when the checkpoints of a new reply came."""
        del case
        found = [one for one in await self._challenger.some_replies() if one.fresh]
        if not found:
            msg = (
                "takes a reply that is new (--generate): of others the network may have had a part"
            )
            raise NotApplicable(msg)
        require_readable(found[0].bare)
        block_size = self._setting.profile.block_size
        if found[0].bare.commitment.reasoning_tokens < 2 * block_size:
            msg = "the reply has fewer than two full blocks: ask for a longer one"
            raise NotApplicable(msg)
        reason = untimed_reason(found[0].bare)
        if reason:
            raise NotMet(wanted="a checkpoint at each full block, as it is decoded", came=reason)

    async def manifest(self, case: Case) -> None:
        """Ask for manifests and fingerprints."""
        del case
        for reply in await self._challenger.some_replies():
            await self._challenger.prepare(reply)
            if reply.evidence.manifest is None:
                raise NotMet(
                    wanted="manifest and fingerprints of a commitment that the provider signed",
                    came=reply.problem,
                )
            require_sound(reply.bare, reply.evidence, LAST_PREPARED)

    async def manifest_again(self, case: Case) -> None:
        """Ask for a manifest twice."""
        del case
        reply = await self._challenger.prepared_reply()
        first = await self._challenger.manifest(reply)
        second = await self._challenger.manifest(reply)
        for name in ("manifest", "fingerprints"):
            if getattr(first, name).payload != getattr(second, name).payload:
                raise NotMet(
                    wanted=f"the same {name} again",
                    came="another statement",
                    advice="Sign both once and keep them: challenges name fingerprints by digest.",
                )

    async def call(self, case: Case) -> None:
        """Send one request, malformed or not."""
        wanted = Malformed.of(case)
        reply: Reply | None = None
        commitment, fingerprints = secrets.token_bytes(32), secrets.token_bytes(32)
        if wanted.needs_key and self._setting.signer is None:
            raise NotApplicable(NO_KEY)
        if wanted.needs_reply:
            reply = await self._challenger.known_reply()
            commitment = reply.evidence.commitment_sha256
            fingerprints = reply.evidence.fingerprints_sha256
        request = wanted.request(
            commitment=commitment,
            fingerprints=fingerprints,
            signer=self._setting.signer,
            name=self._setting.name,
            deadline=self._challenger.deadline(),
        )
        if reply is not None:
            # Answered or not: what a refusal shows later may be this.
            challenge = pb.AnswerChallengeRequest.FromString(request).challenge
            reply.sent.add(digest(challenge.payload))
        method = wanted.method if "/" in wanted.method else f"{SERVICE}/{wanted.method}"
        answer = await self._wire.call(method, request, seconds=wanted.seconds)
        require_status(answer, case.expect, method)

    async def challenge(self, case: Case) -> None:
        """Ask for openings, one after another."""
        given = dict(case.given)
        times, asked = given.pop("times", 1), _asked(case, given)
        for _ in range(times):
            await self._challenger.opened(asked)

    async def again(self, case: Case) -> None:
        """Send one challenge twice."""
        reply, challenge, first = await self._challenger.opened(_asked(case, case.given))
        entry, answer = await self._challenger.send(reply, challenge, whole=False)
        if not entry.HasField("opening"):
            raise NotMet(wanted="the opening again", came=str(answer), advice=_AGAIN_ADVICE)
        after = reply.with_rounds([entry], whole=False)
        require_sound(reply.evidence, after, LAST_OPENED, advice=_AGAIN_ADVICE)
        # Parsed anew: what the evidence has read is not to be changed.
        found = [read_opening(one.opening.payload) for one in (first, entry)]
        for opening in found:
            opening.ClearField("provider_time")
        if found[0] != found[1]:
            raise NotMet(
                wanted=f"what the challenge opened before, with flip {found[0].flip_index}",
                came=f"something else, with flip {found[1].flip_index}",
                advice=_AGAIN_ADVICE,
            )

    async def at_once(self, case: Case) -> None:
        """Send several challenges together."""
        given = dict(case.given)
        times, asked = given.pop("times", 2), _asked(case, given)
        challenger = self._challenger
        reply = await challenger.reply_that(fits(asked))
        challenges = [challenger.signed(reply, asked) for _ in range(times)]
        came = await asyncio.gather(
            *(challenger.send(reply, one, whole=False) for one in challenges)
        )
        rounds = [entry for entry, _ in came]
        worst = next((answer for entry, answer in came if entry.no_answer), came[0][1])
        challenger.hold(reply, rounds, worst, whole=False)
        if not any(entry.HasField("opening") for entry in rounds):
            msg = f"all {times} challenges were refused, and rightly: another reply may allow one"
            raise NotApplicable(msg)

    async def whole(self, case: Case) -> None:
        """Ask for blocks to be opened whole."""
        blocks = case.given.get("blocks", 1)
        if not self._setting.profile.message.caps.whole_blocks_ppm:
            msg = "the profile lets no block be opened whole"
            raise NotApplicable(msg)
        challenger = self._challenger
        if not case.given.get("models", False):
            await challenger.opened_whole(blocks)
            return
        reply = next((one for one in challenger.replies if one.evidence.whole_openings), None)
        if reply is None:
            reply = await challenger.opened_whole(blocks)
        before = reply.evidence
        after = replace(before, installed=await asyncio.to_thread(self._setting.installed))
        await asyncio.to_thread(require_sound, before, after, LAST_WHOLE)

    async def past_caps(self, case: Case) -> None:
        """Ask for more than any cap allows, then for something that is allowed."""
        small, challenger = _asked(case, case.given), self._challenger
        reply = await challenger.reply_that(lambda one: one.affords(small) and _is_capped(one))
        everything = Asked(
            blocks=reply.evidence.commitment.block_count,
            tokens_per_block=self._setting.profile.block_size,
        )
        entry, answer = await challenger.send(
            reply, challenger.signed(reply, everything), whole=False
        )
        challenger.hold(reply, [entry], answer, whole=False)
        if not entry.HasField("refusal"):
            raise _past_a_cap()
        if reply.affords(small):
            await challenger.opened(small, reply)

    async def caps(self, case: Case) -> None:
        """Ask for as much as a cap allows, and then for a little more."""
        of = case.given.get("of")
        if of == "whole_blocks":
            await self._to_the_whole_cap()
            return
        tokens = of == "tokens"
        run = self._setting.profile.run_tokens
        little = Asked(token_blocks=1, tokens_per_block=run) if tokens else Asked(blocks=1)

        def suits(one: Reply) -> bool:
            caps = one.evidence.caps
            cap, total = (
                (caps.tokens, caps.total_tokens)
                if tokens
                else (caps.block_embeddings, caps.total_blocks)
            )
            return cap < total and _is_little_used(one) and one.affords(little)

        reply = await self._challenger.reply_that(suits)
        blocks, block_size = reply.evidence.commitment.block_count, self._setting.profile.block_size
        most = (
            Asked(token_blocks=blocks, tokens_per_block=block_size)
            if tokens
            else Asked(blocks=blocks)
        )
        for _ in range(_ROUNDS):
            asked = Asked(*reply.most(most))
            asked = little if asked == Asked() else asked
            allowed = reply.affords(asked)
            challenge = self._challenger.signed(reply, asked)
            if await self._refused(reply, challenge, whole=False, allowed=allowed):
                return
        raise NotApplicable(_NOT_REACHED)

    async def _to_the_whole_cap(self) -> None:
        def suits(one: Reply) -> bool:
            caps = one.evidence.caps
            return caps.whole_blocks < caps.total_blocks and _is_little_used(one)

        reply = await self._challenger.reply_that(suits)
        for _ in range(_ROUNDS):
            challenge = self._challenger.signed_whole(reply, 1)
            allowed = reply.affords_whole(1)
            if await self._refused(reply, challenge, whole=True, allowed=allowed):
                return
        raise NotApplicable(_NOT_REACHED)

    async def _refused(
        self, reply: Reply, challenge: envelope_pb2.Envelope, *, whole: bool, allowed: bool
    ) -> bool:
        """Send a challenge near a cap; say whether it was refused, and rightly.

        Raises:
            NotMet: It was answered and could have passed the cap, or refused without a reason.
            NotApplicable: The hash chain was used up before the cap was reached.
        """
        entry, answer = await self._challenger.send(reply, challenge, whole=whole)
        self._challenger.hold(reply, [entry], answer, whole=whole)
        if reply.used_up:
            raise NotApplicable(_NOT_REACHED)
        if entry.HasField("refusal"):
            return True
        if not allowed:
            raise _past_a_cap()
        return False

    async def _served(self) -> SignedKeySet:
        found = await self._wire.ask(
            f"{SERVICE}/GetKeySet", pb.GetKeySetRequest(), pb.GetKeySetResponse()
        )
        return SignedKeySet(found.key_set, tuple(found.root_chain))


_AGAIN_ADVICE: Final = (
    "Know a challenge by the SHA-256 of its payload, and give it the flip that it had."
)


def _past_a_cap() -> NotMet:
    return NotMet(
        wanted="a signed refusal: the challenge could pass a cap",
        came="an opening",
        advice=_CAP_ADVICE,
    )


def _is_little_used(reply: Reply) -> bool:
    """Whether enough of the hash chain is left to go up to a cap."""
    return len(reply.sent) < _ROUNDS // 4


def _is_capped(reply: Reply) -> bool:
    """Whether not all of a reply may be opened."""
    caps = reply.evidence.caps
    return caps.tokens < caps.total_tokens or caps.block_embeddings < caps.total_blocks


def _asked(case: Case, given: Mapping[str, object]) -> Asked:
    """Return what a case's challenge asks for.

    Raises:
        InvalidInputError: It has a field that is none of a challenge's.
    """
    numbers = {name: value for name, value in given.items() if isinstance(value, int)}
    if given.keys() - numbers.keys() or numbers.keys() - set(Asked.__dataclass_fields__):
        msg = f"case {case.name}: a challenge has {', '.join(Asked.__dataclass_fields__)}"
        raise InvalidInputError(msg)
    return Asked(**numbers)


OPERATIONS: Final[Mapping[str, Callable[[ProviderDriver, Case], Awaitable[None]]]] = {
    "health": ProviderDriver.health,
    "reflection": ProviderDriver.reflection,
    "anonymous": ProviderDriver.anonymous,
    "key_set": ProviderDriver.key_set,
    "keys_kept": ProviderDriver.keys_kept,
    "receipt": ProviderDriver.receipt,
    "timed": ProviderDriver.timed,
    "manifest": ProviderDriver.manifest,
    "manifest_again": ProviderDriver.manifest_again,
    "call": ProviderDriver.call,
    "challenge": ProviderDriver.challenge,
    "again": ProviderDriver.again,
    "at_once": ProviderDriver.at_once,
    "whole": ProviderDriver.whole,
    "past_caps": ProviderDriver.past_caps,
    "caps": ProviderDriver.caps,
}
"""In the order in which cases run: what uses replies up comes last."""
