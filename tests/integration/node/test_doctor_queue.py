"""`coin doctor` looks for the stream of a queue, and makes none."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine

from coin_protocol.doctor import Finding, State
from tests.support.nodes import nats_stream
from verifier_sdk.node import doctor
from verifier_sdk.node.nats_queue import NatsQueue
from verifier_sdk.node.settings import NodeSettings


async def test_the_stream_of_a_queue_is_looked_for_and_not_made(engine: Engine) -> None:
    async with nats_stream() as stream:
        nats = {"servers": stream.servers, "stream": stream.stream}
        settings = NodeSettings.model_validate({"name": "v", "key": "file:none", "nats": nats})

        async def looked() -> Finding:
            (found,) = await asyncio.to_thread(lambda: [*doctor._queue(settings)])
            assert found.state is State.GOOD
            return found

        assert "serve makes its stream" in (await looked()).found
        assert "serve makes its stream" in (await looked()).found  # still
        queue = await NatsQueue.connect(stream, engine, lease_seconds=30)
        await queue.close()
        assert (await looked()).found == "NATS JetStream answers"
