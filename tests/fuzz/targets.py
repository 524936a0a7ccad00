"""What is fuzzed: each target takes whatever bytes, and raises nothing but an error of ours.

Some hold what was read against something else, too: read, written and read again it is the same;
cut into other pieces it is the same; what claims to be evidence is checked like evidence.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.lib.format import write_array

from coin_protocol import checkpoint, envelope, log_leaf, note, statements, table
from coin_protocol.checks import Case, run_checks
from coin_protocol.decoding import Decoder
from coin_protocol.delivery import comments, read_delivery, read_nonce_header
from coin_protocol.delivery import read_checkpoint as read_delivered
from coin_protocol.errors import CoinError
from coin_protocol.evidence import read_evidence, verify_evidence
from coin_protocol.keys import VerificationKey
from coin_protocol.note_key import NoteVerifier
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import check_receipt, read_bundle, read_receipt, to_json
from coin_protocol.root_certificate import certified_key
from coin_protocol.sse import SseParser
from coin_protocol.testing.forgeries import POLICY
from coin_protocol.testing.small import small_table
from coin_protocol.testing.world import PROVIDER, World
from coin_protocol.tokenizer import read_tokenizer
from coin_protocol.v1 import envelope_pb2
from coin_protocol.vendors import CONVENTIONS, read_usage, readings
from coin_protocol.vendors import UsageError as VendorError
from provider_sdk.replay.traces import read_traces
from tests.fuzz import seeds
from verifier_sdk.bill.check import BillCheck
from verifier_sdk.memory.header import Header, Manifest
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.witness.wire import parse_request, parse_size_answer

M = TypeVar("M", bound=Message)

MAX_BYTES: Final = 65_536
"""Of an input: more finds nothing that less does not."""


class DifferentError(AssertionError):
    """What was read is not the same when it is read in another way."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        run: Reads bytes; an error that is not ours is a finding.
        seeds: Bytes that it reads, or nearly.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]

    def __call__(self, raw: bytes) -> None:
        """Read bytes, which may be refused."""
        with suppress(CoinError):
            self.run(raw)


@cache
def world() -> World:
    """Return whose keys the vectors are signed with."""
    return World(policy=POLICY)


def _same(first: object, second: object) -> None:
    if first != second:
        msg = f"{first!r:.200} and {second!r:.200}"
        raise DifferentError(msg)


def _known(message: M) -> M:
    """Return a file's message without what JSON has no name for."""
    message.DiscardUnknownFields()
    return message


def _receipt(raw: bytes) -> None:
    receipt = _known(read_receipt(raw))
    _same(read_receipt(to_json(receipt).encode()), receipt)
    check_receipt(receipt)
    at = world()
    run_checks(Case(receipt, at.trust, at.profile, at.policy))


def _bundle(raw: bytes) -> None:
    bundle = _known(read_bundle(raw))
    _same(read_bundle(to_json(bundle).encode()), bundle)
    at = world()
    models = at.models
    run_checks(
        Case(
            bundle.receipt,
            at.trust,
            at.profile,
            at.policy,
            manifest=bundle.manifest if bundle.HasField("manifest") else None,
            rounds=bundle.rounds,
            whole_rounds=bundle.whole_rounds,
            installed=(models.tokenizer, models.embedder),
        )
    )
    with suppress(CoinError):
        verify_bundle(bundle, trust=at.trust, profile=at.profile, policy=at.policy)


def _envelope(raw: bytes) -> None:
    with suppress(DecodeError):
        signed = envelope_pb2.Envelope.FromString(raw)
        envelope.verify_with_key(signed, signed.payload_type, world().signer(PROVIDER).public)


def _evidence(raw: bytes) -> None:
    evidence = _known(read_evidence(raw))
    _same(read_evidence(to_json(evidence).encode()), evidence)
    verify_evidence(evidence, trust=world().trust, log_key=None)


def _key(raw: bytes) -> None:
    key = VerificationKey.from_spki("key", raw)
    _same(VerificationKey.from_spki("key", key.spki), key)
    with suppress(CoinError):
        key.verify(bytes(64), b"")


def _vkey(raw: bytes) -> None:
    text = raw.decode("utf-8", "replace")
    key = NoteVerifier.from_vkey(text)
    _same(key.vkey, text)


def _note(raw: bytes) -> None:
    # Not the same bytes: base64 has spare bits, and Go's readers of notes pass over them, too.
    text, signatures = note.split_note(raw)
    _same(note.split_note(note.write_note(text, signatures)), (text, signatures))


def _head(raw: bytes) -> None:
    found = checkpoint.read_unverified(raw)
    _same(checkpoint.parse_checkpoint(found.text()), found)


def _leaf(raw: bytes) -> None:
    _same(log_leaf.parse_leaf(raw).to_bytes(), raw)


def _cut(raw: bytes) -> list[bytes]:
    """Cut bytes into pieces whose lengths the bytes themselves give."""
    pieces, at = [], 0
    while at < len(raw):
        length = 1 + raw[at] % 13
        pieces.append(raw[at : at + length])
        at += length
    return pieces


def _events(pieces: Iterable[bytes]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    parser, joined, events = SseParser(max_event_bytes=4096), b"", []
    for piece in pieces:
        for event in parser.feed(piece):
            joined += event.raw
            if not event.malformed and event.data is not None:
                events.append((event.data, event.name))
    last = parser.close()
    return joined + last, events


def _stream(raw: bytes) -> None:
    whole, by_piece = _events([raw]), _events(_cut(raw))
    _same(whole[0], raw)
    _same(by_piece[0], raw)
    if len(raw) < 4096:
        # Past the limit for an event, where it is cut depends on how it came.
        _same(whole[1], by_piece[1])


def _decoded(raw: bytes) -> None:
    coding = (b"gzip", b"deflate", b"identity", b"br")[raw[0] % 4] if raw else b""
    decoder, limit = Decoder(coding, limit=100_000), 100_000
    for piece in _cut(raw[1:]):
        found = decoder.feed(piece)
        if len(found) > limit:
            msg = f"{len(found)} bytes of a piece; the limit is {limit}"
            raise DifferentError(msg)


def _delivery(raw: bytes) -> None:
    readers = read_nonce_header, read_delivery, read_delivered
    for document in (raw, *(document for _, document in comments(raw))):
        for read in readers:
            with suppress(CoinError):
                read(document)


def _usage(raw: bytes) -> None:
    try:
        block = json.loads(raw)
    except (ValueError, RecursionError):
        return
    found = readings(block)
    for vendor in CONVENTIONS:
        try:
            reported = read_usage(vendor, block)
        except VendorError:
            continue
        _same(found.get(vendor, reported), reported)


def _filed(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a target of a reader of files."""

    def run(raw: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="coin-fuzz-") as folder:
            path = Path(folder) / "file"
            path.write_bytes(raw)
            read(path)

    return run


def _bill(path: Path) -> None:
    for _ in BillCheck(path, form="auto"):
        pass


def _tokenizer(path: Path) -> None:
    tokenizer = read_tokenizer(path)
    tokenizer.encode("a b")
    tokenizer.token_bytes(0)


def _table(path: Path) -> None:
    # A file that is none is built again from the models: here, refused.
    profile = world().profile.message
    place = table.table_path(profile, path.parent)
    place.parent.mkdir(exist_ok=True)
    path.rename(place)

    class RefusedError(CoinError):
        pass

    def models() -> tuple[object, object]:
        raise RefusedError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", table.TableWarning)
        table.load_table(profile, models, folder=path.parent)  # type: ignore[arg-type]


def _tables() -> list[bytes]:
    rows = small_table().rows
    found = []
    for one in (rows, rows[:-1], rows.astype(np.uint16)):
        with tempfile.TemporaryFile() as file:
            write_array(file, one, allow_pickle=False)  # type: ignore[no-untyped-call] # numpy's
            file.seek(0)
            found.append(file.read())
    return found


def _of(kind: str) -> Callable[[], Iterable[bytes]]:
    return lambda: seeds.statements()[kind]


def _file(kind: str) -> Callable[[], Iterable[bytes]]:
    return lambda: seeds.files()[kind]


TARGETS: Final[dict[str, Target]] = {
    "bill": Target(_filed(_bill), seeds.bills),
    "bundle": Target(_bundle, _file("bundle")),
    "certificate": Target(lambda raw: certified_key([raw], "root"), seeds.certificates),
    "challenge": Target(statements.read_challenge, _of("challenge")),
    "checkpoint": Target(statements.read_checkpoint, _of("checkpoint")),
    "commitment": Target(statements.read_commitment, _of("commitment")),
    "decoding": Target(_decoded, lambda: seeds.CODED),
    "delivery": Target(_delivery, seeds.comments),
    "envelope": Target(_envelope, _of("envelope")),
    "evidence": Target(_evidence, seeds.evidence),
    "fingerprints": Target(statements.read_fingerprints, _of("fingerprints")),
    "head": Target(_head, seeds.heads),
    "key": Target(_key, lambda: [world().signer(PROVIDER).public.spki]),
    "keyset": Target(statements.read_key_set, _of("keyset")),
    "leaf": Target(_leaf, seeds.leaves),
    "manifest": Target(statements.read_manifest, _of("manifest")),
    "memory-header": Target(Header.from_json, seeds.memory_headers),
    "memory-manifest": Target(Manifest.from_json, seeds.memory_manifests),
    "model-file": Target(ModelFile.from_bytes, seeds.model_files),
    "note": Target(_note, seeds.heads),
    "opening": Target(statements.read_opening, _of("opening")),
    "pem": Target(lambda raw: VerificationKey.from_pem("key", raw), _file("pem")),
    "policy": Target(Policy.from_bytes, _file("policy")),
    "profile": Target(Profile.from_bytes, _file("profile")),
    "receipt": Target(_receipt, _file("receipt")),
    "refusal": Target(statements.read_refusal, _of("refusal")),
    "stream": Target(_stream, lambda: [seeds.STREAM]),
    "table": Target(_filed(_table), _tables),
    "tokenizer": Target(_filed(_tokenizer), seeds.tokenizer_files),
    "traces": Target(_filed(read_traces), lambda: [seeds.TRACES]),
    "usage": Target(_usage, lambda: seeds.USAGE),
    "verdict": Target(statements.read_verdict, seeds.verdicts),
    "vkey": Target(_vkey, seeds.verifier_keys),
    "whole-challenge": Target(statements.read_whole_challenge, _of("whole-challenge")),
    "whole-opening": Target(statements.read_whole_opening, _of("whole-opening")),
    "witness-answer": Target(parse_size_answer, lambda: [b"8\n"]),
    "witness-request": Target(parse_request, seeds.witness_requests),
}
"""By name."""
