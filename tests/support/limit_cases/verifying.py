"""Limits that a verifier, its log and its memory keep, and whoever collects receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

from coin_protocol.checks import Case, run_checks
from coin_protocol.database.engine import open_engine
from coin_protocol.limits import HASH_BYTES
from coin_protocol.testing.forgeries import audit, change, refused
from coin_protocol.v1 import opening_pb2, receipt_pb2, verifier_service_pb2
from tests.support.limit_cases.case import Kind, LimitCase, RefusedError
from tests.support.log_entries import House
from verifier_sdk.collecting.exchange import Asked, Exchange
from verifier_sdk.collecting.later import _Question
from verifier_sdk.collecting.reply import Endpoint, Reply
from verifier_sdk.memory.header import Header, Mark
from verifier_sdk.node.service import VerifierServicer
from verifier_sdk.replaying import _strange_match
from verifier_sdk.store.metadata import METADATA

REPLY: Final = "verifier_sdk.collecting.reply"
EXCHANGE: Final = "verifier_sdk.collecting.exchange"
HEADER: Final = "verifier_sdk.memory.header"
LOG: Final = "verifier_sdk.log.log"
OPENED: Final = "coin_protocol.checks.opened"


def _told(reply: Reply) -> Reply:
    if reply.problem:
        raise RefusedError(reply.problem)
    return reply


def _said(index: int = 0, content: str = "", name: str = "id") -> Reply:
    reply = Reply(Endpoint.CHAT)
    reply.event({"id": name, "choices": [{"index": index, "delta": {"content": content}}]}, 0)
    return _told(reply)


def _named(size: int) -> Reply:
    reply = _said(name="n" * size)
    if not reply.response_id:
        msg = "the name is left out"
        raise RefusedError(msg)
    return reply


_MARK: Final = Mark(1, bytes(HASH_BYTES))
_HEADER: Final = Header(
    profile_sha256=bytes(HASH_BYTES),
    dimension=1,
    first=1,
    last=1,
    blocks=1,
    vectors=1,
    flat_rows=1,
    oldest=_MARK,
    newest=_MARK,
    providers={"acme": (0, 1)},
    rows_sha256=bytes(HASH_BYTES),
    lists_sha256=None,
)


def _exchanged(feed: Callable[[Exchange], object], kind: str = "text/event-stream") -> Exchange:
    exchange = Exchange(Asked(Endpoint.CHAT, b"{}"))
    exchange.begin(kind=kind, coding="")
    feed(exchange)
    if exchange.problems:
        raise RefusedError(exchange.problems[0].message)
    return exchange


def _handed_over(count: int) -> Exchange:
    return _exchanged(lambda reply: reply.feed(b': coin.checkpoint {"a":1}\n\n' * count, 0))


def _held(size: int) -> Exchange:
    told = b'{"a":1}'.ljust(size)
    return _exchanged(lambda reply: reply.feed(b": coin.receipt " + told + b"\n\n", 0))


def _plain(size: int) -> Exchange:
    return _exchanged(lambda reply: reply.feed(b"{}".ljust(size), 0), "application/json")


def _fetched(size: int) -> None:
    body = bytearray()
    if not _Question().takes(body, bytes(size)):
        msg = f"no more than {len(body)} bytes are read"
        raise RefusedError(msg)


def _leaf_hashes(size: int) -> object:
    def resized(hashes: bytes) -> bytes:
        tokens = len(hashes) // HASH_BYTES
        return hashes.ljust(tokens * size, b"\0")[: tokens * size]

    edit = change("blocks.0.token_leaf_hashes", resized)
    return _passed(audit().ask(edit_opening=edit).case())


def _used_up(count: int) -> object:
    asked = audit()
    for _ in range(count):
        asked = asked.ask()
    reason = opening_pb2.REFUSAL_REASON_FLIPS_USED_UP
    edit = refused(asked.world, asked.answered(), reason=reason)
    return _passed(asked.ask(edit_round=edit).case())


def _passed(case: Case) -> object:
    report = run_checks(case)
    if report.failed is not None:
        raise RefusedError(report.detail)
    return report


@contextmanager
def _house() -> Iterator[House]:
    with TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder, 'log.db')}")
        try:
            names = [name for name in METADATA.tables if name.startswith("log_")]
            METADATA.create_all(engine, [METADATA.tables[name] for name in names])
            yield House(engine, Path(folder))
        finally:
            engine.dispose()


def _entries(count: int) -> object:
    with _house() as house:
        house.append(count)
        found = len(house.log.entries(0, count))
    if found < count:
        msg = f"{found} of {count} are given"
        raise RefusedError(msg)
    return found


def _inclusion(size: int) -> object:
    with _house() as house:
        house.append(3)
        known = house.tree.leaf_hashes[0]
        return house.log.inclusion(known.ljust(size, b"\0")[:size])


def _listed(size: int) -> object:
    with _house() as house:
        METADATA.create_all(house.engine)
        request = verifier_service_pb2.ListAuditsRequest(provider="n" * size)
        service: Any = SimpleNamespace(_engine=house.engine)
        return VerifierServicer._list(service, request)


def _matched(size: int) -> object:
    opened = SimpleNamespace(opening=SimpleNamespace(blocks=[SimpleNamespace(block_index=0)]))
    case: Any = SimpleNamespace(openings=[opened], commitment_sha256=b"")
    decided: Any = SimpleNamespace(judgement=object())
    match = receipt_pb2.BlockMatch(other_commitment_sha256=bytes(size), cosine=1.0)
    strange = _strange_match(case, [match], decided)
    if strange is not None:
        raise RefusedError(str(strange))
    return decided


VERIFYING: Final = (
    LimitCase("MAX_CHOICES", REPLY, "choices", lambda count: _said(count - 1), "0 to 1023"),
    LimitCase(
        "MAX_TEXT_BYTES",
        REPLY,
        "text",
        lambda size: _said(content="x" * size),
        "more than 100 bytes",
        lowered=100,
    ),
    LimitCase("MAX_NAME_BYTES", REPLY, "id", _named, "left out"),
    LimitCase(
        "MAX_EMBEDDING_DIMENSION",
        "verifier_sdk.memory.header",
        "dimension",
        lambda size: Header.from_json(replace(_HEADER, dimension=size).to_json()),
        "numbers out of their limits",
    ),
    LimitCase(
        "HASH_BYTES",
        HEADER,
        "profile_sha256",
        lambda size: Header.from_json(replace(_HEADER, profile_sha256=bytes(size)).to_json()),
        "a digest has",
        Kind.EXACT,
    ),
    LimitCase(
        "MAX_CHECKPOINTS", EXCHANGE, "checkpoints", _handed_over, "more than a receipt", lowered=5
    ),
    LimitCase("MAX_MESSAGE_BYTES", EXCHANGE, "receipt", _held, "more than a receipt", lowered=100),
    LimitCase("MAX_MESSAGE_BYTES", EXCHANGE, "plain reply", _plain, "more than 100", lowered=100),
    LimitCase(
        "MAX_MESSAGE_BYTES",
        "verifier_sdk.collecting.later",
        "receipt that is asked for later",
        _fetched,
        "no more than 101 bytes",
        lowered=100,
    ),
    LimitCase("MAX_LOG_ENTRIES", LOG, "entries", _entries, "5 of 6 are given", lowered=5),
    LimitCase(
        "HASH_BYTES",
        LOG,
        "leaf hash asked for",
        _inclusion,
        "a leaf hash has 32",
        Kind.EXACT,
        behind="no entry",
    ),
    LimitCase(
        "HASH_BYTES",
        "verifier_sdk.replaying",
        "commitment of a match",
        _matched,
        "the digest of another commitment",
        Kind.EXACT,
    ),
    LimitCase(
        "MAX_NAME_BYTES",
        "verifier_sdk.node.service",
        "provider whose audits are listed",
        _listed,
        "provider has more than 256",
    ),
    LimitCase(
        "HASH_BYTES",
        OPENED,
        "leaf hashes of a block",
        _leaf_hashes,
        "bytes of leaf hashes are shown",
        Kind.EXACT,
        behind="token root",
    ),
    LimitCase(
        "FLIP_CHAIN_LENGTH",
        OPENED,
        "challenges answered before a refusal",
        _used_up,
        "the chain has more flips",
        Kind.LEAST,
        lowered=3,
    ),
)
"""What must be refused by whoever audits, whatever messages allow."""
