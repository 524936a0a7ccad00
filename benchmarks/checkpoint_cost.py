"""What committing costs the serving path: `Session.append`, checkpoints signed, per token.

Block embeddings are made elsewhere in a real provider; here they are left out altogether.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from benchmarks._common import (
    CHUNK,
    TOKENS,
    HashFloor,
    UnembeddedProvider,
    least_seconds,
    open_provider,
    random_ids,
    report,
)

P = ParamSpec("P")
T = TypeVar("T")


class ServingPath(UnembeddedProvider):
    """A provider that leaves undone what it would do on its background thread."""

    def run_later(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return a future that nobody fulfils."""
        del call, args, kwargs
        return Future()


def main() -> None:
    """Measure 100,000 tokens as they are decoded, 16 at a time."""
    with open_provider(ServingPath) as provider:
        ids = random_ids(provider.profile, TOKENS).tolist()
        chunks = [ids[at : at + CHUNK] for at in range(0, TOKENS, CHUNK)]

        def serve() -> None:
            session = provider.new_session()
            for chunk in chunks:
                session.append(chunk)

        floor = HashFloor(TOKENS, provider.profile.block_size)
        least, served = least_seconds(floor.run, serve)
    per_token = served / TOKENS * 1e6
    report("checkpoint_cost.per_token", per_token, unit="us", better="lower")
    report("checkpoint_cost.to_hash_floor", served / least, unit="ratio", better="lower")


if __name__ == "__main__":
    main()
