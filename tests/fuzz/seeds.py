"""Where fuzzing begins: the bytes of the test vectors, taken apart, and a few written here."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import tokenizers
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from safetensors.numpy import save
from tokenizers import decoders, models, pre_tokenizers

from coin_protocol import testing
from coin_protocol.checkpoint import Checkpoint, cosign, sign_checkpoint
from coin_protocol.checks import run_checks
from coin_protocol.delivery import CHECKPOINT
from coin_protocol.evidence import commitment_equivocation
from coin_protocol.keyset import SignedKeySet
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.note import add_signatures
from coin_protocol.note_key import NoteAlgorithm, NoteSigner, NoteVerifier
from coin_protocol.receipt import read_receipt, to_json
from coin_protocol.sse import comment
from coin_protocol.testing.forgeries import audit, billed
from coin_protocol.testing.world import START, VERIFIER, World
from coin_protocol.v1 import delivery_pb2, envelope_pb2, opening_pb2, receipt_pb2
from verifier_sdk.memory.header import Header, Listed, Manifest, Mark
from verifier_sdk.semantic import Judgement
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.verdict import make_verdict, sign_verdict
from verifier_sdk.witness.wire import write_request

VECTORS: Final = Path(testing.__file__).parent / "vectors"
BILLS: Final = Path(__file__).parents[1] / "unit/bill/data"

Seeds = dict[str, list[bytes]]


@cache
def documents() -> tuple[dict[str, Any], ...]:
    """Return the evidence vectors."""
    folder = VECTORS / "evidence"
    return tuple(json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json")))


@cache
def statements() -> Seeds:
    """Return the payloads of all envelopes in the vectors, by the name of their type."""
    found: Seeds = {}
    for document in documents():
        for signed in _envelopes(document):
            name = signed.payload_type.removeprefix("application/vnd.coin.")
            found.setdefault(name.removesuffix(".v1+protobuf"), []).append(signed.payload)
            found.setdefault("envelope", []).append(signed.SerializeToString())
    return {name: sorted(set(seeds)) for name, seeds in found.items()}


@cache
def files() -> Seeds:
    """Return whole files: receipts and bundles in both forms, profiles, policies, keys."""
    found: Seeds = {name: [] for name in ("receipt", "bundle", "profile", "policy", "pem")}
    for document in documents():
        receipt = b64decode(document["receipt"])
        found["receipt"] += [receipt, to_json(read_receipt(receipt)).encode()]
        if document["manifest"] is None:
            continue
        bundle = receipt_pb2.Bundle(
            format="coin.bundle.v1",
            receipt=receipt_pb2.Receipt.FromString(receipt),
            rounds=[_round(raw) for raw in document["rounds"]],
            whole_rounds=[_round(raw) for raw in document["whole_rounds"]],
            manifest=envelope_pb2.Envelope.FromString(b64decode(document["manifest"])),
            verdict=_verdict(),
        )
        found["bundle"] += [bundle.SerializeToString(), to_json(bundle).encode()]
        found["profile"].append(b64decode(document["profile"]))
        found["policy"].append(b64decode(document["policy"]))
        found["pem"] += [pem.encode() for pem in document["provider_roots"]]
    return {name: sorted(set(seeds)) for name, seeds in found.items()}


def of_vectors(folder: str) -> list[bytes]:
    """Return what bytes and texts the vectors in a folder hold, in any field."""
    found: set[bytes] = set()
    for path in sorted((VECTORS / folder).glob("*.json")):
        found |= set(_leaves(json.loads(path.read_bytes())))
    return sorted(found)


def _leaves(value: object) -> Iterator[bytes]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value.encode()
        if len(value) % 2 == 0:
            with suppress(ValueError):
                yield bytes.fromhex(value)


def _verdict() -> envelope_pb2.Envelope:
    case = audit().ask().case()
    judged = Judgement(receipt_pb2.OUTCOME_PASS, "nothing is wrong")
    verdict = make_verdict(case, run_checks(case), verifier=VERIFIER, judgement=judged, notes=[])
    return sign_verdict(verdict, World().signer(VERIFIER))


def verdicts() -> list[bytes]:
    """Return a verdict."""
    return [_verdict().payload]


def _round(raw: str) -> receipt_pb2.Round:
    return receipt_pb2.Round.FromString(b64decode(raw))


def _envelopes(document: dict[str, Any]) -> Iterator[envelope_pb2.Envelope]:
    receipt = receipt_pb2.Receipt.FromString(b64decode(document["receipt"]))
    yield receipt.key_set
    yield receipt.commitment
    yield receipt.fingerprints
    for seen in receipt.checkpoints:
        yield seen.checkpoint
    if document["manifest"] is not None:
        yield envelope_pb2.Envelope.FromString(b64decode(document["manifest"]))
    for raw in (*document["rounds"], *document["whole_rounds"]):
        entry = _round(raw)
        yield entry.challenge
        if entry.HasField("opening"):
            yield entry.opening
        if entry.HasField("refusal"):
            yield entry.refusal
            refusal = opening_pb2.Refusal.FromString(entry.refusal.payload)
            yield from (shown.challenge for shown in refusal.answered)


def heads() -> list[bytes]:
    """Return signed and cosigned heads of a log."""
    root = bytes(range(32))
    found = []
    for size in (0, 1, 2**40):
        head = Checkpoint("example.org/coin-log", size, EMPTY_ROOT if not size else root)
        signed = sign_checkpoint(head, [_note_signer("example.org/coin-log")])
        witness = _note_signer("witness.example.org", NoteAlgorithm.COSIGNATURE)
        found += [signed, add_signatures(signed, [cosign(head, witness, 1_700_000_000)])]
    return found


def verifier_keys() -> list[bytes]:
    """Return keys of notes as text."""
    found = []
    for algorithm in NoteAlgorithm:
        public = World().signer("example.org/coin-log").public
        found.append(NoteVerifier.from_key(public, algorithm).vkey.encode())
    return found


def witness_requests() -> list[bytes]:
    """Return what a log asks a witness."""
    return [write_request(size, [bytes(32)] * size, heads()[2]) for size in (0, 1, 3)]


def leaves() -> list[bytes]:
    """Return leaves of a log."""
    return [
        CommitmentLeaf("provider", bytes(16), bytes(32)).to_bytes(),
        VerdictLeaf(bytes(32), bytes(range(32))).to_bytes(),
    ]


def evidence() -> list[bytes]:
    """Return evidence of two commitments to one session, in both forms."""
    first = World().reply(tokens=20).receipt
    second = World().reply(tokens=20, edit_commitment=billed(28, blocks=4)).receipt
    found = commitment_equivocation(
        first.commitment,
        second.commitment,
        key_set=SignedKeySet(first.key_set),
        trust=World().trust,
    )
    return [found.SerializeToString(), to_json(found).encode()]


def model_files() -> list[bytes]:
    """Return files of tensors."""
    with tempfile.TemporaryDirectory() as folder:
        file = ModelFile.write(
            Path(folder) / "file", {"a": np.zeros(3, np.float32)}, {"dimension": "3"}
        )
    return [file.raw, save({"a": np.zeros(3, np.float32)})]


def memory_headers() -> list[bytes]:
    """Return the header of a segment of remembered blocks."""
    mark = Mark(1, bytes(32))
    providers = {"provider": (0, 2)}
    return [
        Header(bytes(32), 8, 1, 2, 2, 2, 64, mark, mark, providers, bytes(32), lists).to_json()
        for lists in (None, bytes(range(32)))
    ]


def memory_manifests() -> list[bytes]:
    """Return lists of segments."""
    listed = Listed("segment-1-2", bytes(32))
    return [Manifest().to_json(), Manifest(2, (listed,)).to_json()]


def bills() -> list[bytes]:
    """Return exports of bills."""
    return [path.read_bytes() for path in sorted(BILLS.iterdir()) if path.is_file()]


def tokenizer_files() -> list[bytes]:
    """Return small files of tokenizers: byte level, byte fallback, words, tekken."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = tokenizers.Tokenizer(models.BPE({p: i for i, p in enumerate(alphabet)}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "a"]
    fallback = tokenizers.Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], byte_fallback=True)
    )
    fallback.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106
    tekken = {
        "config": {
            "pattern": r"[^\r\n]+|[\r\n]+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 258,
            "default_num_special_tokens": 2,
            "version": "v3",
        },
        "vocab": [
            {"rank": byte, "token_bytes": b64encode(bytes((byte,))).decode(), "token_str": None}
            for byte in range(256)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": text, "is_control": True}
            for rank, text in enumerate(("<unk>", "<s>"))
        ],
    }
    files = [one.to_str().encode() for one in (byte_level, fallback, words)]
    return [*files, json.dumps(tekken).encode()]


def certificates() -> list[bytes]:
    """Return a certificate that its own key signed, DER."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider.example.org")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, START, START)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("provider.example.org")]), critical=False
    )
    return [builder.sign(key, None).public_bytes(Encoding.DER)]


def _note_signer(name: str, algorithm: NoteAlgorithm = NoteAlgorithm.ED25519) -> NoteSigner:
    return NoteSigner(World().signer(name), algorithm)


def comments() -> list[bytes]:
    """Return what a gateway adds to a stream, and the JSON in it."""
    receipt = World().reply(tokens=20).receipt
    seen = receipt.checkpoints[0].checkpoint
    delivered = delivery_pb2.DeliveredCheckpoint(choice=0, checkpoint=seen)
    line = json.dumps(json.loads(to_json(delivered))).encode()
    return [comment(CHECKPOINT, line), line]


STREAM: Final = (
    b": a comment\n\n"
    b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
    b"event: message\r\ndata: one\r\ndata: two\r\n\r\n"
    b'data: {"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}}\r\r'
    b"\xef\xbb\xbfid: 7\nretry: 10\ndata\n\ndata: [DONE]\n\n"
)

CODED: Final = (
    b"\x00" + gzip.compress(b"the answer " * 40, mtime=0),
    b"\x01" + zlib.compress(b"the answer " * 40),
    b"\x00" + gzip.compress(bytes(100_000), mtime=0),
    b"\x02plain",
)

USAGE: Final = tuple(
    json.dumps(block).encode()
    for block in (
        {
            "prompt_tokens": 7,
            "completion_tokens": 25,
            "total_tokens": 32,
            "completion_tokens_details": {"reasoning_tokens": 20},
            "prompt_tokens_details": {"cached_tokens": 3},
        },
        {
            "input_tokens": 7,
            "output_tokens": 25,
            "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 32,
        },
        {"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 25},
        {
            "promptTokenCount": 7,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 32,
        },
        {"prompt_tokens": 1e400, "completion_tokens": -1, "total_tokens": None},
    )
)

TRACES: Final = b'{"id": "a", "domain": "math", "question": "q", "reasoning": "r", "answer": "a"}\n'
