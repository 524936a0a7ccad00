"""The provider inside of another process: set up by its environment, closed when it ends."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.testing.small import SmallModels
from provider_sdk.integrations.host import host_from_environment
from provider_sdk.integrations.vllm import CoinMiddleware
from tests.integration.gateway.standing import commitment
from tests.integration.integrations.embedded import asked, fetched, port_of, serving_app
from tests.support.command import run_coin
from tests.support.parties import Parties
from tests.support.recordings import RecordedServer
from tests.support.upstreams import Script

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write what a provider's folder holds, and name it as the environment does."""
    for variable in [name for name in os.environ if name.startswith("COIN_")]:
        if variable != "COIN_CACHE_DIR":
            monkeypatch.delenv(variable)
    done = run_coin("keys", "init", tmp_path / "keys", "--name", "acme", "--role", "provider")
    assert done.code == 0, done.err
    sealing = tmp_path / "keys" / "sealing.key"
    sealing.write_bytes(base64.b64encode(os.urandom(32)))
    sealing.chmod(0o600)
    (tmp_path / "profile").write_bytes(Parties().profile.raw)
    file = tmp_path / "provider.toml"
    file.write_text(
        f"""
name = "acme"
keys = "{tmp_path}/keys"
profile = "{tmp_path}/profile"
database = "sqlite:///{tmp_path}/coin.db"
embedding_workers = 0

[gateway]
reasoning = "pass"
"""
    )
    monkeypatch.setenv("COIN_CONFIG", str(file))
    monkeypatch.setattr("coin_protocol.cli.common.Models", SmallModels)


@pytest.mark.usefixtures("config")
async def test_the_middleware_stands_up_from_its_file_alone_and_keeps_what_it_signed() -> None:
    async with serving_app(CoinMiddleware(RecordedServer())) as server:
        seen = await asked(f"http://127.0.0.1:{port_of(server)}")
    delivery = seen.delivery
    # As the table [gateway] says.
    assert (Script().reasoning or "") in seen.text
    assert commitment(delivery).reasoning_tokens == len(Script().reasoning_ids)
    async with serving_app(CoinMiddleware(RecordedServer())) as server:
        again = await fetched(f"http://127.0.0.1:{port_of(server)}", delivery.response_id)
    assert again.status_code == 200
    (found,) = again.json()["choices"]
    payload = base64.b64decode(found["commitment"]["payload"])
    assert payload == delivery.choices[0].commitment.payload


@pytest.mark.usefixtures("config")
def test_a_setting_that_is_wrong_is_said_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COIN_GATEWAY_VENDOR", "s3cret")
    with pytest.raises(ConfigurationError, match="vendor") as caught, host_from_environment():
        pass
    assert "s3cret" not in str(caught.value)


SCRIPT = """
import threading
from contextlib import contextmanager
from provider_sdk.integrations.host import open_for_good

@contextmanager
def opening():
    stop = threading.Event()
    waits = threading.Thread(target=stop.wait)
    waits.start()
    yield "opened"
    stop.set()
    waits.join()
    print("closed")

print(open_for_good(opening()))
"""


def test_what_is_opened_for_good_is_closed_when_the_process_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["opened", "closed"]), done.stderr
