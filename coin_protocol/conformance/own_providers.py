"""Providers of the runner's own, honest and lying, for a verifier node to audit.

All of them have one name, one key set and one address, so that the node has to know one provider.
Needs what `coin_protocol.testing.adversaries` needs: `coin-audit[provider]`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from coin_protocol import transport
from coin_protocol.conformance.asking import chat_request, keep
from coin_protocol.conformance.case import Case, Kind
from coin_protocol.conformance.judging import NotApplicable
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    CoinError,
    InvalidInputError,
    RefusedError,
    TryLaterError,
    UnknownCommitmentError,
)
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing
from coin_protocol.keyset import KeySetSource, SignedKeySet, sign_key_set
from coin_protocol.models import Models
from coin_protocol.signer import Signer
from coin_protocol.statements import read_key_set
from coin_protocol.testing.adversaries import (
    ALL_ADVERSARIES,
    TOKEN_BLOCK_ADVERSARIES,
    Adversary,
    Found,
)
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc

HONEST: Final = "honest"
SERVICE: Final = pb.DESCRIPTOR.services_by_name["ProviderService"].full_name
_HONEST: Final = Adversary(HONEST, "honest", "")
_SAMPLE_FIELDS: Final = ("id", "domain", "question", "reasoning", "answer")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """A question with its reasoning and answer; the fields are those of a trace."""

    id: str
    domain: str
    question: str
    reasoning: str
    answer: str


def read_samples(path: Path | None) -> list[Sample]:
    """Read traces, one JSON object a line; those that ship where no file is given.

    Raises:
        InvalidInputError: The file cannot be read, or a line is no trace.
    """
    if path is None:
        # A file of data, from the package whose providers these are.
        raw = files("provider_sdk.replay").joinpath("traces.jsonl").read_bytes()
    else:
        raw = read_file(path)
    samples = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            values = {name: document[name] for name in _SAMPLE_FIELDS}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            msg = f"{path}, line {number}: wanted an object with {', '.join(_SAMPLE_FIELDS)}"
            raise InvalidInputError(msg) from error
        if not all(isinstance(value, str) for value in values.values()):
            msg = f"{path}, line {number}: every field must be text"
            raise InvalidInputError(msg)
        samples.append(Sample(**values))
    if not samples:
        msg = f"{path} holds no traces: wanted one JSON object a line"
        raise InvalidInputError(msg)
    return samples


def liars() -> dict[str, Adversary]:
    """Return every liar whose end is known, by name."""
    return {liar.name: liar for liar in ALL_ADVERSARIES}


class LiarCases:
    """A case for each liar: what the node must say of it."""

    def cases(self) -> Iterator[Case]:
        """Make them."""
        for liar in liars().values():
            yield _case(liar)


_AT_THE_DOOR: Final = frozenset({"SIGNATURE", "STATEMENT"})
"""Checks of what a node looks at before it takes a receipt."""

_EXPECTED: Final[Mapping[Found, Mapping[str, Any]]] = {
    Found.UNTIMED: {"failed": None, "timed": False},
    Found.UNDECIDED: {"outcome": ["INCONCLUSIVE"]},
}


def _case(liar: Adversary) -> Case:
    expect: Mapping[str, Any] = {"failed": sorted(liar.codes)}
    advice = f"Look at check {liar.caught_by} of the protocol, section 7."
    if liar.found is not Found.CHECK:
        # Graded lies are the judge's to weigh, and no check may fail for them.
        expect = _EXPECTED.get(liar.found, {"failed": None})
        advice = "No deterministic check fails for this lie: look at the one that your node names."
    given: dict[str, Any] = {"reply": liar.name}
    if liar in TOKEN_BLOCK_ADVERSARIES:
        given["token_blocks"] = True
    if "whole" in liar.title or any(code.startswith("WHOLE_") for code in liar.codes):
        given["whole_blocks"] = True
    if liar.codes & _AT_THE_DOOR:
        given["refusable"] = True
    return Case(
        name=f"lie-{liar.name}",
        about=f"A provider lies: {liar.title}.",
        kind=Kind.VERIFIER,
        operation="audit",
        given=given,
        expect=expect,
        advice=advice,
    )


@dataclass(frozen=True, kw_only=True)
class OwnSetting:
    """What the runner's providers are made of.

    Attributes:
        name: Theirs, as in the key set.
        signer: Of their statements.
        key_set: Signed by their root.
        root: Signs the key sets of liars about keys; None where the root key is kept elsewhere.
        models: Of the profile.
        verifiers: The node's key.
        samples: That they answer from, in turn.
        tokens_per_second: That they decode.
    """

    name: str
    signer: Signer
    key_set: KeySetSource
    root: Signer | None
    models: Models
    verifiers: KeyRing
    samples: Sequence[Sample]
    tokens_per_second: float


class OwnProviders:
    """Makes replies, and answers for them. Made by `own_providers`."""

    def __init__(self, setting: OwnSetting, stack: ExitStack) -> None:
        """Hold what they share.

        Args:
            setting: Of all.
            stack: Closes each provider that was needed.
        """
        self._setting = setting
        self._stack = stack
        self._liars = {HONEST: _HONEST, **liars()}
        self._providers: dict[str, Any] = {}
        self._holders: dict[bytes, Any] = {}
        self._turns = count()

    async def reply(self, name: str) -> receipt_pb2.Receipt:
        """Have a provider answer, and keep the receipt as its client would.

        Args:
            name: `honest`, or that of a liar.

        Raises:
            InvalidInputError: There is no such liar.
        """
        liar = self._liars.get(name)
        if liar is None:
            msg = f"no provider {name!r}; there are {', '.join(self._liars)}"
            raise InvalidInputError(msg)
        if name not in self._providers:
            self._providers[name] = await asyncio.to_thread(self._made, liar)
        provider = self._providers[name]
        setting = self._setting
        # The same fields as a trace's; the type itself is the package's own.
        samples: Any = setting.samples
        replay = liar.replay(provider, samples, tokens_per_second=setting.tokens_per_second)
        sample = setting.samples[next(self._turns) % len(setting.samples)]
        request, nonce = chat_request(name, sample.question), secrets.token_bytes(32)
        receipt = await keep(replay.stream(name, request, nonce), request=request, nonce=nonce)
        self._holders[digest(receipt.commitment.payload)] = provider
        return receipt

    def holder(self, commitment_sha256: bytes) -> Any:  # noqa: ANN401 - the package's own type
        """Return the provider that holds a commitment.

        Raises:
            UnknownCommitmentError: None does.
        """
        provider = self._holders.get(commitment_sha256)
        if provider is None:
            msg = f"no session here has the commitment {commitment_sha256.hex()[:64]}"
            raise UnknownCommitmentError(msg)
        return provider

    def key_set(self) -> pb.GetKeySetResponse:
        """Return the key set that they serve."""
        served = self._setting.key_set.served
        return pb.GetKeySetResponse(key_set=served.signed, root_chain=served.root_chain)

    def _made(self, liar: Adversary) -> Any:  # noqa: ANN401 - as above
        setting = self._setting
        made = liar.provider(
            name=setting.name,
            signer=setting.signer,
            key_set=self._key_set_of(liar),
            models=setting.models,
            verifiers=setting.verifiers,
        )
        return self._stack.enter_context(made)

    def _key_set_of(self, liar: Adversary) -> KeySetSource:
        """Return the key set that a liar shows: most of them that of all."""
        setting = self._setting
        now, public = datetime.now(UTC), setting.signer.current().public
        listed = liar.lists(public, now)
        if listed.is_valid(now):
            return setting.key_set
        if setting.root is None:
            msg = "this lie takes another key set: keep root.pem in --keys for it"
            raise NotApplicable(msg)
        ring = read_key_set(setting.key_set.served.signed.payload)
        # Later than that of all, or the node would take that one in its place.
        sequence = ring.sequence + 1
        signed = sign_key_set(
            setting.name, [listed], root=setting.root, issued_at=now, sequence=sequence
        )
        return SignedKeySet(signed)


@asynccontextmanager
async def own_providers(
    setting: OwnSetting, listen: str, tls: transport.ServerTls | None
) -> AsyncIterator[OwnProviders]:
    """Serve the runner's providers until the block ends.

    Args:
        setting: What they are made of.
        listen: HOST:PORT at which the node calls them.
        tls: Files; None for plaintext on loopback.

    Raises:
        ConfigurationError: The address cannot be bound.
    """
    with ExitStack() as stack:
        providers = OwnProviders(setting, stack)
        server = await transport.make_server(SERVICE)
        pb_grpc.add_ProviderServiceServicer_to_server(_Servicer(providers), server)
        transport.bind(server, listen, tls)
        await server.start()
        try:
            yield providers
        finally:
            await server.stop(None)


class _Servicer(pb_grpc.ProviderServiceServicer):
    """Answers a node's calls, with the statuses of the challenge service."""

    def __init__(self, providers: OwnProviders) -> None:
        self._providers = providers

    async def GetKeySet(  # noqa: N802 - as in the .proto
        self, request: pb.GetKeySetRequest, context: transport.Context
    ) -> pb.GetKeySetResponse:
        del request
        return await _run(context, self._providers.key_set)

    async def GetManifest(  # noqa: N802
        self, request: pb.GetManifestRequest, context: transport.Context
    ) -> pb.GetManifestResponse:
        key = request.commitment_sha256

        def show() -> pb.GetManifestResponse:
            manifest, fingerprints = self._providers.holder(key).manifest(key)
            return pb.GetManifestResponse(manifest=manifest, fingerprints=fingerprints)

        return await _run(context, show)

    async def AnswerChallenge(  # noqa: N802
        self, request: pb.AnswerChallengeRequest, context: transport.Context
    ) -> pb.AnswerChallengeResponse:
        key, challenge = request.commitment_sha256, request.challenge

        def answer() -> envelope_pb2.Envelope:
            opening: envelope_pb2.Envelope = self._providers.holder(key).answer(key, challenge)
            return opening

        return pb.AnswerChallengeResponse(opening=await _run(context, answer))

    async def AnswerWholeBlockChallenge(  # noqa: N802
        self, request: pb.AnswerWholeBlockChallengeRequest, context: transport.Context
    ) -> pb.AnswerWholeBlockChallengeResponse:
        key, challenge = request.commitment_sha256, request.challenge

        def answer() -> envelope_pb2.Envelope:
            holder = self._providers.holder(key)
            opening: envelope_pb2.Envelope = holder.answer_whole(key, challenge)
            return opening

        return pb.AnswerWholeBlockChallengeResponse(opening=await _run(context, answer))


async def _run(context: transport.Context, call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except CoinError as error:
        signed = getattr(error, "signed", None)
        if isinstance(error, RefusedError) and signed is not None:
            detail = pb.RefusalDetail(refusal=signed)
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            return await transport.abort(context, code, str(error), detail)
        return await transport.abort(context, _status_of(error), str(error))


def _status_of(error: CoinError) -> grpc.StatusCode:
    for kind, code in (
        (UnknownCommitmentError, grpc.StatusCode.NOT_FOUND),
        (TryLaterError, grpc.StatusCode.UNAVAILABLE),
        (InvalidInputError, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.FAILED_PRECONDITION
