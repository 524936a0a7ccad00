"""The gateway's settings: where they come from, their limits, and their silence on secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coin_protocol.errors import ConfigurationError
from provider_sdk.gateway.config import Reasoning, is_configured, load_settings

UPSTREAM = "http://127.0.0.1:8000"


def test_the_upstream_alone_is_enough() -> None:
    settings = load_settings(None, upstream=f"{UPSTREAM}/")
    assert settings.upstream_root == UPSTREAM
    assert settings.sign
    assert settings.reasoning is Reasoning.HIDE
    assert not settings.require_receipt


def test_options_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "coin.toml"
    file.write_text(
        f'name = "acme"\n[gateway]\nupstream = "{UPSTREAM}"\nport = 1\nkeep_missing = 2\n'
        'grace_seconds = 3\n[gateway.model_markers]\n"acme-2" = "gpt-oss"\n'
    )
    monkeypatch.setenv("COIN_GATEWAY_PORT", "4")
    monkeypatch.setenv("COIN_GATEWAY_KEEP_MISSING", "5")
    settings = load_settings(file, port=6, host=None)
    assert (settings.port, settings.keep_missing, settings.grace_seconds) == (6, 5, 3)
    assert settings.model_markers == {"acme-2": "gpt-oss"}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"upstream": "not a url"},
        {"upstream": "ftp://127.0.0.1"},
        {"upstream": f"{UPSTREAM}/?a=b"},
        {"upstream": "http://me:sesame-open@127.0.0.1"},
        {"upstream": UPSTREAM, "port": 65_536},
        {"upstream": UPSTREAM, "max_request_bytes": 1},
        {"upstream": UPSTREAM, "client_stall_seconds": 0},
        {"upstream": UPSTREAM, "vendor": "nobody"},
        {"upstream": UPSTREAM, "tls_key": "/nowhere"},
        {"upstream": UPSTREAM, "reasoning": "show"},
        {"upstream": UPSTREAM, "sign": False, "require_receipt": True},
        {"upstream": UPSTREAM, "unheard_of": 1},
        {"upstream": UPSTREAM, "caller_key": "sesame-open"},
    ],
)
def test_what_cannot_be_used_is_refused_in_words(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="the gateway's settings") as found:
        load_settings(None, **wrong)
    assert "sesame-open" not in str(found.value)


@pytest.mark.parametrize("text", ["gateway = 3", "[gateway", "[gateway]\nunheard_of = 1"])
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "coin.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"coin\.toml"):
        load_settings(file, upstream=UPSTREAM)


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COIN_GATEWAY_PROT", "1")
    with pytest.raises(ConfigurationError, match=r"COIN_GATEWAY_PROT.*COIN_GATEWAY_PORT"):
        load_settings(None, upstream=UPSTREAM)


def test_secrets_are_not_shown() -> None:
    settings = load_settings(None, upstream=UPSTREAM, caller_key="sesame-open-sesame")
    assert "sesame" not in repr(settings)


def test_a_secret_may_be_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "coin_database").write_text("postgresql://h/d")
    (tmp_path / "coin_gateway_caller_key").write_text("sesame-open-sesame\n")
    assert [*load_settings(None, upstream=UPSTREAM).secret_values()] == ["sesame-open-sesame"]
    (tmp_path / "coin_gateway_caler_key").write_text("sesame-open-sesame")
    with pytest.raises(ConfigurationError, match=r"caler_key.*mean coin_gateway_caller_key"):
        load_settings(None, upstream=UPSTREAM)


def test_what_is_missing_is_said_with_how_to_give_it() -> None:
    said = "upstream: missing; give it as --upstream, COIN_GATEWAY_UPSTREAM or in the file"
    with pytest.raises(ConfigurationError, match=said):
        load_settings(None, upstream=None)


def test_it_is_known_whether_there_is_anything_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "coin.toml"
    file.write_text("name = 'acme'")
    assert not is_configured(file)
    monkeypatch.setenv("COIN_GATEWAY_PORT", "1")
    assert is_configured(file)
    monkeypatch.delenv("COIN_GATEWAY_PORT")
    file.write_text("[gateway]")
    assert is_configured(file)
