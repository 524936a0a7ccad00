"""Committing 100,000 tokens costs little more than the hashing in it.

Leaf bytes, salts, hashing and root on one thread, against the bare hashlib calls.
"""

from __future__ import annotations

import os

from benchmarks._common import (
    CHUNK,
    TOKENS,
    HashFloor,
    any_table,
    least_seconds,
    random_ids,
    report,
)
from coin_protocol.commitment import CommitmentBuilder, SessionSecret
from coin_protocol.profile import Profile


def main() -> None:
    """Measure ids handed over all at once, and as they are decoded."""
    profile = Profile.shipped("default")
    fingerprints = any_table(profile).fingerprints
    ids = random_ids(profile, TOKENS).tolist()
    session = SessionSecret(os.urandom(16), os.urandom(32))

    def commit(chunk: int) -> None:
        builder = CommitmentBuilder(
            session, block_size=profile.block_size, fingerprints=fingerprints
        )
        for at in range(0, TOKENS, chunk):
            builder.append(ids[at : at + chunk])
        builder.finish()

    floor, whole, streamed = least_seconds(
        HashFloor(TOKENS, profile.block_size).run, lambda: commit(TOKENS), lambda: commit(CHUNK)
    )
    report("commitment_floor.at_once", whole / floor, unit="ratio", better="lower", limit=1.6)
    report(f"commitment_floor.by_{CHUNK}", streamed / floor, unit="ratio", better="lower")
    report(
        "commitment_floor.microseconds_per_token", whole / TOKENS * 1e6, unit="us", better="lower"
    )


if __name__ == "__main__":
    main()
