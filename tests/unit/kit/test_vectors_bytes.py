"""The product gives what vectors of hashes, draws and counts say."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coin_protocol import draw, encoding, merkle
from coin_protocol.checks import run_checks
from coin_protocol.commitment import CommitmentBuilder, SessionSecret, fingerprint_leaf_hashes
from coin_protocol.errors import CoinError, ExposureCapError
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.quantise import dequantise, quantise
from coin_protocol.statements import read_challenge, read_whole_challenge
from coin_protocol.table import TokenTable
from coin_protocol.testing.forgeries import POLICY, embedded
from coin_protocol.testing.small import DIMENSION, small_profile
from coin_protocol.testing.world import World
from coin_protocol.usage import is_as_signed, verify_usage
from coin_protocol.v1 import profile_pb2, statements_pb2
from tests.unit.kit.test_vectors import Runner, Vector, cases, run, vectors


def raw(given: Vector, name: str) -> bytes:
    return bytes.fromhex(given[name])


def several(given: Vector, name: str) -> list[bytes]:
    return [bytes.fromhex(entry) for entry in given[name]]


# Encoding.


def tag(given: Vector) -> object:
    return {"bytes": encoding.tag(given["name"]).hex()}


def token_fingerprint(given: Vector) -> object:
    found = encoding.token_fingerprint(given["token_id"], raw(given, "row"))
    return {"fingerprint": found.hex()}


def block_salts(given: Vector) -> object:
    block, tokens = encoding.block_salts(
        raw(given, "session_secret"), given["block"], given["tokens"]
    )
    salts = [tokens[at : at + 16].hex() for at in range(0, len(tokens), 16)]
    return {"block_salt": block.hex(), "token_salts": salts}


def leaf(data: bytes) -> object:
    return {"data": data.hex(), "leaf_hash": merkle.leaf_hash(data).hex()}


def token_leaf(given: Vector) -> object:
    session_id, salt, fp = (raw(given, name) for name in ("session_id", "salt", "fingerprint"))
    data = encoding.token_leaf(session_id, given["block"], given["position"], salt, fp)
    array = np.frombuffer(fp, np.uint8).reshape(1, 32)
    (hashed,) = encoding.token_leaf_hashes(
        session_id, given["block"], salt, array, first=given["position"]
    )
    assert hashed == merkle.leaf_hash(data)
    return leaf(data)


def block_leaf(given: Vector) -> object:
    return leaf(
        encoding.block_leaf(
            raw(given, "session_id"),
            given["block"],
            given["first"],
            given["tokens"],
            raw(given, "token_root"),
        )
    )


def fingerprint_leaf(given: Vector) -> object:
    return leaf(
        encoding.fingerprint_leaf(
            raw(given, "session_id"),
            given["block"],
            raw(given, "block_salt"),
            several(given, "windows"),
        )
    )


# Commitments.


def commit(given: Vector, *, pieces: int = 1) -> object:
    session = SessionSecret(raw(given, "session_id"), raw(given, "session_secret"))
    rows = np.array([list(row) for row in several(given, "rows")], np.uint8)
    table, ids = TokenTable(rows), given["token_ids"]
    builder = CommitmentBuilder(
        session, block_size=given["block_size"], fingerprints=table.fingerprints
    )
    step = len(ids) // pieces + 1
    prefixes = [
        prefix for at in range(0, len(ids), step) for prefix in builder.append(ids[at : at + step])
    ]
    tree = builder.finish()
    windows = [[bytes.fromhex(row) for row in block] for block in given["windows"]]
    return {
        "token_table_root": table.root.hex(),
        "blocks": [
            {"token_count": entry.token_count, "token_root": entry.token_root.hex()}
            for entry in tree.entries
        ],
        "checkpoints": [
            {
                "block_count": prefix.block_count,
                "token_count": prefix.token_count,
                "token_root": prefix.token_root.hex(),
            }
            for prefix in prefixes
        ],
        "token_root": tree.token_root.hex(),
        "fingerprint_root": merkle.root(fingerprint_leaf_hashes(session, windows)).hex(),
    }


# Quantised vectors.


def quantised(given: Vector) -> object:
    return {"row": quantise(np.array([given["numbers"]], np.float64))[0].tobytes().hex()}


def dequantised(given: Vector) -> object:
    return {"numbers": dequantise([raw(given, "row")], given["dimension"])[0].tolist()}


class CheckFailedError(CoinError):
    """A check failed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def check_windows(given: Vector) -> object:
    """Audit a reply of one block that is committed with these windows."""
    dimension, windows = given["dimension"], several(given, "windows")
    profile = small_profile(
        window_tokens=given["window_tokens"],
        projection=0 if dimension == DIMENSION else dimension,
    )
    world = World(profile=profile, policy=POLICY)
    reply = world.reply(tokens=given["token_count"], opener=embedded(lambda _: windows))
    report = run_checks(world.audit(reply).ask().case())
    if report.failed is not None:
        raise CheckFailedError(report.failed.code, report.detail)
    return "ok"


# Flips and draws.


def flip_chain(given: Vector) -> object:
    secret = raw(given, "secret")
    flips = [draw.flip_for(secret, index).hex() for index in range(1, 65)]
    return {"anchor": draw.flip_anchor(secret).hex(), "flips": flips}


def verify_flip(given: Vector) -> object:
    draw.verify_flip(flip=raw(given, "flip"), index=given["index"], anchor=raw(given, "anchor"))
    return "ok"


def seed(given: Vector) -> object:
    make = draw.seed if given["kind"] == "challenge" else draw.whole_seed
    found = make(
        fingerprints_sha256=raw(given, "fingerprints_sha256"),
        nonce=raw(given, "nonce"),
        flip=raw(given, "flip"),
        round_number=given["round"],
    )
    return {"seed": found.hex()}


def below(given: Vector) -> object:
    stream = draw._Stream(raw(given, "seed"))
    return {"values": [str(stream.below(int(bound))) for bound in given["bounds"]]}


def places(drawn: draw.Drawn) -> object:
    return {
        "blocks": [{"index": one.index, "positions": [*one.positions]} for one in drawn.blocks],
        "token_blocks": [
            {"index": one.index, "positions": [*one.positions]} for one in drawn.token_blocks
        ],
    }


def draw_(given: Vector) -> object:
    return places(
        draw.draw(
            raw(given, "seed"),
            given["token_counts"],
            blocks=given["blocks"],
            tokens_per_block=given["tokens_per_block"],
            token_blocks=given["token_blocks"],
            run_tokens=given["run_tokens"],
        )
    )


def draw_whole(given: Vector) -> object:
    found = draw.draw_whole(raw(given, "seed"), given["block_count"], blocks=given["blocks"])
    return {"blocks": list(found)}


def drawn_by(given: Vector) -> object:
    challenge = read_challenge(decoded(given["challenge"]))
    counts, run_tokens = given["token_counts"], given["run_tokens"]
    return places(draw.drawn_by(challenge, raw(given, "flip"), counts, run_tokens=run_tokens))


def drawn_whole_by(given: Vector) -> object:
    challenge = read_whole_challenge(decoded(given["challenge"]))
    found = draw.drawn_whole_by(challenge, raw(given, "flip"), given["block_count"])
    return {"blocks": list(found)}


# The bill.


def usage_of(block: Vector) -> statements_pb2.Usage:
    counting = statements_pb2.ReasoningCounting.Value(block["reasoning_counting"])
    return statements_pb2.Usage(**block | {"reasoning_counting": counting})


def usage(given: Vector) -> object:
    verify_usage(
        usage_of(given["usage"]),
        reasoning_tokens=given["reasoning_tokens"],
        answer_tokens=given["answer_tokens"],
    )
    return "ok"


def told_as_signed(given: Vector) -> object:
    return {"same": is_as_signed(usage_of(given["told"]), usage_of(given["signed"]))}


# Exposure.


def caps_of(caps: Vector, tokens: int, blocks: int) -> Caps:
    return Caps.of(profile_pb2.ExposureCaps(**caps), tokens=tokens, blocks=blocks)


def caps(given: Vector) -> object:
    found = caps_of(given["caps"], given["tokens"], given["blocks"])
    return {
        "tokens": found.tokens,
        "block_embeddings": found.block_embeddings,
        "whole_blocks": found.whole_blocks,
    }


def ledger(given: Vector) -> object:
    counts = given["token_counts"]
    most = caps_of(given["caps"], sum(counts), len(counts))
    found, steps = ExposureLedger(), []
    for asked in given["challenges"]:
        try:
            _answer(found, most, asked, counts)
            answered = True
        except ExposureCapError:
            answered = False
        shown = found.exposure()
        steps.append(
            {
                "answered": answered,
                "tokens": shown.tokens,
                "block_embeddings": shown.block_embeddings,
                "whole_blocks": shown.whole_blocks,
            }
        )
    return {"steps": steps}


def _answer(found: ExposureLedger, most: Caps, asked: Vector, counts: list[int]) -> None:
    blocks, start = asked["blocks"], raw(asked, "seed")
    if asked["kind"] == "whole-challenge":
        found.require_whole(most, blocks=blocks)
        found.add_whole(draw.draw_whole(start, len(counts), blocks=blocks))
        return
    token_blocks, tokens = asked["token_blocks"], asked["tokens_per_block"]
    found.require(most, blocks=blocks, token_blocks=token_blocks, tokens_per_block=tokens)
    drawn = draw.draw(
        start,
        counts,
        blocks=blocks,
        token_blocks=token_blocks,
        tokens_per_block=tokens,
        run_tokens=most.run_tokens,
    )
    found.add(drawn, edge=(len(counts) - 1, counts[-1] - 1))


def decoded(text: str) -> bytes:
    return b64decode(text, validate=True)


RUNNERS: dict[str, dict[str, Runner]] = {
    "encoding": {
        "tag": tag,
        "token_fingerprint": token_fingerprint,
        "block_salts": block_salts,
        "token_leaf": token_leaf,
        "block_leaf": block_leaf,
        "fingerprint_leaf": fingerprint_leaf,
    },
    "commitments": {"commit": commit},
    "quantise": {
        "quantise": quantised,
        "dequantise": dequantised,
        "check_windows": check_windows,
    },
    "draws": {
        "flip_chain": flip_chain,
        "verify_flip": verify_flip,
        "seed": seed,
        "below": below,
        "draw": draw_,
        "draw_whole": draw_whole,
        "drawn_by": drawn_by,
        "drawn_whole_by": drawn_whole_by,
    },
    "usage": {"verify_usage": usage, "told_as_signed": told_as_signed},
    "exposure": {"caps": caps, "ledger": ledger},
}
ALL: dict[str, Runner] = {name: one for kind in RUNNERS.values() for name, one in kind.items()}


@pytest.mark.parametrize("vector", cases(*RUNNERS))
def test_a_vector_comes_to_what_it_states(vector: Vector) -> None:
    run(vector, ALL)


def test_ids_in_pieces_come_to_the_same_commitment() -> None:
    for vector in vectors("commitments").values():
        if "value" in vector["expect"]:
            for pieces in (2, 7, 40):
                assert commit(vector["input"], pieces=pieces) == vector["expect"]["value"]


def test_a_runner_tells_a_wrong_value_and_a_wrong_error() -> None:
    good = vectors("draws")["draw-one-of-three"]
    spoilt: Any = json.loads(json.dumps(good))
    spoilt["expect"]["value"]["blocks"][0]["index"] ^= 1
    with pytest.raises(AssertionError):
        run(spoilt, ALL)
    spoilt["expect"] = {"error": "VerificationError"}
    with pytest.raises(pytest.fail.Exception):
        run(spoilt, ALL)
    wrong = vectors("draws")["flip-made-up"]
    with pytest.raises(AssertionError):
        run(wrong | {"expect": {"error": "StatementError"}}, ALL)


def test_a_ledger_does_not_care_for_the_order_of_what_was_drawn() -> None:
    vector = vectors("exposure")["ledger-of-the-policy-that-ships"]["input"]
    counts = vector["token_counts"]
    most = caps_of(vector["caps"], sum(counts), len(counts))
    wide = replace(most, tokens=most.total_tokens)
    forth, back = ExposureLedger(), ExposureLedger()
    for ledger_, asks in ((forth, vector["challenges"][:2]), (back, vector["challenges"][1::-1])):
        for asked in asks:
            _answer(ledger_, wide, asked, counts)
    assert forth == back
