"""From keys to a verdict by the commands of the README: gateway, client, service, audit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from google.protobuf import json_format

from coin_protocol.receipt import write_file
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import delivery_pb2, receipt_pb2
from tests.integration.gateway.standing import QUESTION
from tests.support.command import run_coin, serving_coin
from tests.support.parties import MODEL, PROVIDER, VERIFIER, small_policy
from tests.support.upstreams import Script, Style, Upstream, running
from verifier_sdk import Recorder

_CHECKPOINT, _RECEIPT = ": coin.checkpoint ", ": coin.receipt "


def _folder(folder: Path) -> Path:
    """Make keys for both sides, a profile, a policy and settings; return the settings."""
    for name, role in ((PROVIDER, "provider"), (VERIFIER, "verifier")):
        done = run_coin("keys", "init", folder / role, "--name", name, "--role", role)
        assert done.code == 0, done.said
    assert run_coin("provider", "sealing-key", folder / "provider" / "sealing.key").code == 0
    (folder / "profile").write_bytes(small_profile().raw)
    (folder / "policy").write_bytes(small_policy().raw)
    settings = folder / "provider.toml"
    settings.write_text(
        f'name = "{PROVIDER}"\nkeys = "{folder / "provider"}"\nprofile = "{folder / "profile"}"\n'
        f'database = "sqlite:///{folder / "coin.db"}"\nlisten = "127.0.0.1:0"\n'
        f'[verifiers]\n"{VERIFIER}" = "{folder / "verifier" / "key.pub.pem"}"\n'
        "[gateway]\ngrace_seconds = 1\n"
    )
    return settings


async def _lines(url: str, recorder: Recorder, body: bytes) -> AsyncIterator[str]:
    headers = {"coin-nonce": recorder.client_nonce.hex(), "authorization": "Bearer k"}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers) as http,
        http.stream("POST", "/v1/chat/completions", content=body) as reply,
    ):
        assert reply.status_code == 200
        async for line in reply.aiter_lines():
            yield line


async def _ask(url: str) -> receipt_pb2.Receipt:
    """Ask once, as a client that keeps its receipts."""
    body = json.dumps({"model": MODEL, "stream": True, "messages": QUESTION}).encode()
    recorder = Recorder(request=body)
    delivery = delivery_pb2.Delivery()
    async for line in _lines(url, recorder, body):
        if line.startswith(_CHECKPOINT):
            found = json_format.Parse(
                line.removeprefix(_CHECKPOINT), delivery_pb2.DeliveredCheckpoint()
            )
            recorder.checkpoint(found.checkpoint)
        elif line.startswith(_RECEIPT):
            json_format.Parse(line.removeprefix(_RECEIPT), delivery)
        elif line.startswith("data: {"):
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                recorder.answer_delta(choice["delta"].get("content") or "")
    return recorder.finish(commitment=delivery.choices[0].commitment, key_set=delivery.key_set)


async def test_a_reply_through_the_gateway_is_audited_by_the_command(tmp_path: Path) -> None:
    settings = _folder(tmp_path)
    receipt, bundle = tmp_path / "receipt.binpb", tmp_path / "bundle.binpb"
    script = Script(reasoning=" ".join(["the air sends the short waves around"] * 8))
    # As a model decodes: what comes all at once cannot have been timed.
    async with running(Upstream(lambda _: [script], Style(pause=0.002))) as upstream:
        command = ("gateway", "--upstream", upstream.url, "--port", "0", "--config", settings)
        with serving_coin(*command) as gateway:
            write_file(receipt, await _ask(f"http://127.0.0.1:{gateway['port']}"))
    common = ("--root", tmp_path / "provider" / "root.pub.pem", "--profile", tmp_path / "profile")
    ruled: tuple[str | Path, ...] = (*common, "--policy", tmp_path / "policy")
    verified = run_coin("receipt", "verify", receipt, *ruled, "--json")
    assert verified.code == 0, verified.said
    with serving_coin("provider", "serve", "--config", settings) as service:
        audited = run_coin(
            *("audit", receipt, "--provider", f"127.0.0.1:{service['port']}", *ruled),
            *("--key", tmp_path / "verifier" / "key.pem", "--name", VERIFIER),
            *("--judge", "rules", "--bundle-out", bundle, "--json"),
            small=True,
        )
    assert audited.code == 0, audited.said
    assert audited.document["outcome"] == "OUTCOME_PASS"
    assert "TIER_TIMED" in audited.document["tiers"]
    again = run_coin(
        *("bundle", "verify", bundle, *ruled),
        *("--verifier-key", tmp_path / "verifier" / "key.pub.pem", "--json"),
        small=True,
    )
    assert again.code == 0, again.said
    assert again.document["same"]
