"""A node remembers what was opened, with the verdict, and tells of blocks that it has seen."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, select

from coin_protocol.testing.small import small_profile
from provider_sdk.provider import Provider
from tests.support.audits import bear_out, says, verdict_of
from tests.support.nodes import NodeParts, running_node
from tests.support.parties import Parties, reasoning_ids, run_session
from tests.support.servers import serving
from verifier_sdk.memory.tables import MEMORY_BLOCK


def remembered(engine: Engine) -> list[tuple[str, bytes, int]]:
    columns = (
        MEMORY_BLOCK.c.provider,
        MEMORY_BLOCK.c.commitment_sha256,
        MEMORY_BLOCK.c.block_index,
    )
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).order_by(MEMORY_BLOCK.c.id))
        return [(row[0], row[1], row[2]) for row in rows]


async def test_a_block_that_was_sold_before_is_noted_after_a_restart(
    either_engine: Engine, tmp_path: Path
) -> None:
    engine = either_engine
    parties = Parties(profile=small_profile(blocks_ppm=1_000_000, tokens_ppm=1_000_000))
    with parties.provider() as provider:
        replies = [run_session(provider, reasoning_ids(8)) for _ in range(2)]
        async with serving(provider) as target:
            bundles = []
            for reply in replies:
                # Another process each time: nothing is remembered but by the database.
                async with running_node(NodeParts(parties, engine, target), tmp_path) as node:
                    audit_id = await node.submit(reply.receipt)
                    bundles.append((await node.decide(audit_id)).bundle)
    first, second = map(verdict_of, bundles)
    assert not says(first, "is like block")
    assert says(second, f"is like block 0 of commitment {replies[0].commitment_sha256.hex()}")
    assert [match.other_commitment_sha256 for match in bundles[1].matches] == [
        replies[0].commitment_sha256
    ]
    assert remembered(engine) == [("acme", reply.commitment_sha256, 0) for reply in replies]
    for bundle in bundles:
        bear_out(parties, bundle, parties.policy)


async def test_what_was_forged_is_not_remembered(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    receipt = run_session(provider).receipt
    receipt.answer += b"!"
    async with (
        serving(provider) as target,
        running_node(NodeParts(parties, engine, target), tmp_path) as node,
    ):
        decided = await node.decide(await node.submit(receipt))
    assert verdict_of(decided.bundle).checks
    assert remembered(engine) == []
