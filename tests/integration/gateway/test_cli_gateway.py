"""`coin gateway`, as a process of its own over a database."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai

from coin_protocol.testing.small import small_profile
from tests.integration.gateway.standing import QUESTION, commitment, parsed
from tests.support.command import Coin, run_coin, serving_coin
from tests.support.parties import MODEL, PROVIDER
from tests.support.upstreams import Script, Upstream, running


def _config(folder: Path) -> Path:
    (folder / "small.binpb").write_bytes(small_profile().raw)
    file = folder / "coin.toml"
    file.write_text(
        f'name = "{PROVIDER}"\nkeys = "{folder / "keys"}"\nprofile = "{folder / "small.binpb"}"\n'
        f'database = "sqlite:///{folder / "coin.db"}"\n[gateway]\ngrace_seconds = 1\n'
    )
    return file


async def test_a_gateway_serves_and_its_receipts_outlive_it(tmp_path: Path, coin: Coin) -> None:
    assert coin("keys", "init", tmp_path / "keys", "--name", PROVIDER).code == 0
    assert coin("provider", "sealing-key", tmp_path / "keys" / "sealing.key").code == 0
    file = _config(tmp_path)
    async with running(Upstream()) as upstream:
        arguments = ("gateway", "--upstream", upstream.url, "--port", "0", "--config", file)
        with serving_coin(*arguments) as said:
            url = f"http://127.0.0.1:{said['port']}"
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
                reply = await client.chat.completions.create(model=MODEL, messages=QUESTION)
        with serving_coin(*arguments) as said:
            url = f"http://127.0.0.1:{said['port']}/coin/v1/receipts/{reply.id}"
            async with httpx.AsyncClient() as http:
                again = await http.get(url, headers={"authorization": "Bearer k"})
    delivery = parsed((reply.model_extra or {})["coin"])
    assert reply.choices[0].message.content == Script().answer
    assert commitment(delivery).reasoning_tokens == len(Script().reasoning_ids)
    assert parsed(again.json()) == delivery


def test_what_it_cannot_use_is_said_in_one_sentence() -> None:
    done = run_coin("gateway", "--upstream", "nowhere", "--port", "0", small=True)
    assert done.code == 2
    assert "the gateway's settings cannot be used" in done.said
    assert "Traceback" not in done.said
