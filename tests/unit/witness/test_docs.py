"""docs/witness.md and what is deployed say what the code does."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.effective import describe_settings
from coin_protocol.ops.http_server import HEAD_SECONDS
from tests.support.witnesses import NAME, ORIGIN, Log, cosigner
from verifier_sdk.witness.app import BODY_SECONDS, STATUS
from verifier_sdk.witness.config import WitnessSettings, load_settings
from verifier_sdk.witness.metrics import OUTCOMES, Metrics
from verifier_sdk.witness.store import MAX_EVIDENCE, SEEN_HEADS

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "witness.md").read_text()
EXAMPLE = ROOT / "deploy" / "witness.toml"
UNIT = (ROOT / "deploy" / "systemd" / "coin-witness.service").read_text()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*os.environ]:
        if variable.startswith("COIN_WITNESS_"):
            monkeypatch.delenv(variable)


def test_every_setting_is_explained_as_the_code_has_it() -> None:
    for setting in describe_settings(WitnessSettings):
        default = setting.default
        shown = default if default in {"", "required"} else f"`{default}`"
        assert f"| `{setting.name}` | {shown} | {setting.text} |" in DOCS


def test_every_metric_and_outcome_is_explained_and_no_other() -> None:
    families = {
        metric.name + {"counter": "_total"}.get(metric.type, "")
        for metric in Metrics([ORIGIN]).registry.collect()
        if metric.name.startswith("coin_")
    }
    assert {*re.findall(r"^\| `(coin_[a-z_]+)", DOCS, re.MULTILINE)} == families
    assert ", ".join(f"`{outcome}`" for outcome in OUTCOMES) in DOCS


def test_every_status_is_explained() -> None:
    listed = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+)", DOCS, re.MULTILINE)
        for number in re.findall(r"\d{3}", row)
    }
    assert listed == {200, 408, 413, 429, 500, 503, *STATUS.values()}


def test_limits_are_those_of_the_code() -> None:
    assert HEAD_SECONDS == BODY_SECONDS == 10
    for said in (f"largest {SEEN_HEADS:,} heads", f"at most {MAX_EVIDENCE} of\none log"):
        assert said in DOCS


def test_the_example_file_can_be_used() -> None:
    found = load_settings(EXAMPLE)
    assert found.name == "example.org/w1"
    # What is commented out can be used as well.
    whole = re.sub(r"^# (\w+ = \")", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert {*tomllib.loads(whole)} <= {*WitnessSettings.model_fields}
    assert "tls_key" in tomllib.loads(whole)


def test_the_unit_sets_what_there_is_and_stops_later_than_the_grace_period() -> None:
    known = {setting.variable for setting in describe_settings(WitnessSettings)}
    assert {*re.findall(r"\b(COIN_\w+)=", UNIT)} <= known
    (wait,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(wait) > WitnessSettings.model_fields["grace_seconds"].default + 10
    assert "coin_witness:/etc/coin-witness/credentials" in UNIT
    made = (ROOT / "deploy" / "systemd" / "coin-witness.tmpfiles").read_text()
    for folder in ("/etc/coin-witness", "/etc/coin-witness/credentials", "/var/lib/coin-witness"):
        assert re.search(rf"^d {folder} ", made, re.MULTILINE)


def test_what_the_docs_import_is_there() -> None:
    (ask,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    exec("\n".join(re.findall(r"^from .*$", ask, re.MULTILINE)), {})  # noqa: S102 - our own text


# Settings


def given(**more: object) -> dict[str, object]:
    return {"name": NAME, "key": "file:w.pem", **more}


def test_logs_are_one_key_or_several_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one, other = Log().verifier.vkey, Log(seed=2).verifier.vkey
    file = tmp_path / "w.toml"
    file.write_text(f'[logs]\n"a" = "{one}"\n"b c" = ["{one}", "{other}"]\n')
    assert load_settings(file, **given()).logs == {"a": (one,), "b c": (one, other)}
    monkeypatch.setenv("COIN_WITNESS_LOGS", f'{{"x": "{one}"}}')
    assert load_settings(None, **given()).logs == {"x": (one,)}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"logs": {"a": "nonsense"}}, "NAME"),
        ({"logs": {"a": cosigner().verifier.vkey}}, "key of a witness"),
        ({"logs": {"a": []}}, "at least 1"),
        ({"listen": "here"}, "HOST:PORT"),
        ({"tls_key": "k.pem"}, "together"),
        ({"database": "mysql://x"}, "wanted sqlite"),
        ({"requests_per_second": 0}, "greater than 0"),
        ({"requests_per_secnod": 5}, "did you mean requests_per_second"),
        ({"name": ""}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_used_say_what_is_wanted(
    more: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_settings(None, **given(**more))


def test_secrets_of_the_settings_are_known_to_the_log() -> None:
    settings = load_settings(
        None,
        **given(key="pkcs11:token=x?pin-value=hidden", database="postgresql://u:secret@h/n"),
    )
    assert [*settings.secret_values()] == ["secret", "pkcs11:token=x?pin-value=hidden"]
    assert "hidden" not in repr(settings)
