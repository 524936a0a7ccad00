"""The demo's provider process: one model for each lie, and an honest one."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import ExitStack
from pathlib import Path

from coin_protocol.cli.common import print_json, quiet_models
from coin_protocol.keyset import pinned_verifiers, read_key_set_file
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.signer import signer_from_uri


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--verifier", required=True)
    parser.add_argument("--verifier-key", type=Path, required=True)
    parser.add_argument("--listen", required=True)
    options = parser.parse_args()
    quiet_models()

    from coin_protocol.demo.scenarios import HONEST
    from coin_protocol.testing.adversaries import ADVERSARIES, Adversary
    from provider_sdk.replay import Replay, shipped_traces
    from provider_sdk.replay.server import serve_replays

    traces = shipped_traces()
    models = Models(Profile.shipped("demo"))
    with ExitStack() as stack:
        replays: dict[str, Replay] = {}
        for liar in (Adversary(HONEST, "honest", ""), *ADVERSARIES):
            provider = liar.provider(
                name=options.name,
                signer=signer_from_uri(f"file:{options.keys / 'key.pem'}", options.name),
                key_set=read_key_set_file(options.keys / "keyset.binpb"),
                models=models,
                verifiers=pinned_verifiers({options.verifier: options.verifier_key.read_bytes()}),
            )
            stack.enter_context(provider)
            replays[liar.name] = liar.replay(provider, traces)
        asyncio.run(serve_replays(replays, options.listen, None, _ready))


def _ready(port: int) -> None:
    print_json({"port": port})


if __name__ == "__main__":
    main()
