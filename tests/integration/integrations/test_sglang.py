"""The middleware in a recording of SGLang 0.5.23's server: its package needs CUDA.

What is recorded: which requests it gives ids for and which it answers 400, that its parser sets
reasoning apart, and by which names its launcher finds the application.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coin_protocol.errors import ConfigurationError, MissingDependencyError
from coin_protocol.v1 import statements_pb2
from provider_sdk.integrations import sglang
from provider_sdk.integrations.middleware import CoinMiddleware
from tests.integration.gateway.standing import commitment, parsed
from tests.integration.integrations.embedded import asked, embedded
from tests.support import recordings
from tests.support.parties import Parties
from tests.support.upstreams import Script

SAMPLED = statements_pb2.ID_SOURCE_SAMPLED
RETOKENIZED = statements_pb2.ID_SOURCE_RETOKENIZED


async def test_a_streamed_chat_is_tokenized_again_and_says_so() -> None:
    recorded = recordings.sglang()
    async with embedded(Parties(), recorded) as stands:
        first = await asked(stands.url)
        second = await asked(stands.url)
    for seen in (first, second):
        found = commitment(seen.delivery)
        assert found.id_source == RETOKENIZED
        assert found.reasoning_tokens == len(Script().reasoning_ids)
        assert seen.text == Script().answer
        assert "short waves" not in seen.raw.decode()
    # Asked for ids once, and never again.
    asks = [bool(body.get("return_token_ids")) for body in recorded.upstream.requests]
    assert asks == [True, False, False]


async def test_a_plain_chat_commits_to_the_ids_that_were_sampled() -> None:
    async with embedded(Parties(), recordings.sglang()) as stands:
        seen = await asked(stands.url, stream=False)
    found = commitment(parsed(httpx.Response(200, content=seen.raw).json()["coin"]))
    assert found.id_source == SAMPLED
    assert found.reasoning_tokens == len(Script().reasoning_ids)


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_commit_to_the_ids_that_were_sampled(*, stream: bool) -> None:
    async with embedded(Parties(), recordings.sglang(parser="")) as stands:
        # Streamed chats were refused before: that must not be remembered of completions.
        await asked(stands.url)
        seen = await asked(stands.url, path="/v1/completions", prompt="why?", stream=stream)
    delivery = (
        seen.delivery if stream else parsed(httpx.Response(200, content=seen.raw).json()["coin"])
    )
    found = commitment(delivery)
    assert found.id_source == SAMPLED
    assert found.reasoning_tokens == len(Script().reasoning_ids)


SERVER = """
from types import SimpleNamespace

class App:
    def __init__(self):
        self.user_middleware = []

    def add_middleware(self, cls):
        self.user_middleware.insert(0, SimpleNamespace(cls=cls))

app = App()
"""
LAUNCHER = """
import sys
from sglang.srt.entrypoints.http_server import app

if __name__ == "__main__":
    app.launched = sys.argv[1:]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lay out modules under the names that SGLang 0.5.23 has them under; return its application."""
    entrypoints = tmp_path / "sglang" / "srt" / "entrypoints"
    entrypoints.mkdir(parents=True)
    for folder in (entrypoints, entrypoints.parent, entrypoints.parent.parent):
        (folder / "__init__.py").touch()
    (entrypoints / "http_server.py").write_text(SERVER)
    (tmp_path / "sglang" / "launch_server.py").write_text(LAUNCHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SGLANG_HTTP_SERVER_APP_PATH", "provider_sdk.integrations.sglang:app")
    monkeypatch.setattr(sys, "argv", ["sglang", "--model-path", "m"])
    import sglang.srt.entrypoints.http_server as server  # type: ignore[import-not-found] # above

    yield server.app
    for name in [name for name in sys.modules if name.partition(".")[0] == "sglang"]:
        del sys.modules[name]


def test_the_launcher_adds_the_middleware_and_starts_the_server(package: Any) -> None:
    sglang.main()
    assert package.launched == ["--model-path", "m"]
    assert [each.cls for each in package.user_middleware] == [CoinMiddleware]


def test_workers_import_an_application_that_has_the_middleware_once(package: Any) -> None:
    module, _, name = os.environ["SGLANG_HTTP_SERVER_APP_PATH"].partition(":")
    assert getattr(sys.modules[module], name) is package
    assert getattr(sys.modules[module], name) is package
    assert [each.cls for each in package.user_middleware] == [CoinMiddleware]


def test_another_application_for_the_workers_is_refused(
    package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_HTTP_SERVER_APP_PATH", "mine:app")
    with pytest.raises(ConfigurationError, match="SGLANG_HTTP_SERVER_APP_PATH"):
        sglang.main()
    assert package.user_middleware == []


def test_without_sglang_it_says_what_is_missing() -> None:
    with pytest.raises(MissingDependencyError, match="SGLang"):
        sglang.application()
