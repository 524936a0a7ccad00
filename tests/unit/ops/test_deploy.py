from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from coin_protocol.ops.effective import describe_settings
from provider_sdk.cli import CLOSING_SECONDS
from provider_sdk.gateway.config import Settings
from provider_sdk.ops.metrics import Metrics
from provider_sdk.ops.settings import ProviderSettings, load_settings
from verifier_sdk.node.settings import NodeSettings
from verifier_sdk.witness.config import WitnessSettings

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
DOCS = (ROOT / "docs" / "operations.md").read_text()
ALERTS = (DEPLOY / "alerts.yml").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def names() -> set[str]:
    """Names of the project's own metrics, as a query writes them."""
    return {
        metric.name + suffix
        for metric in Metrics().registry.collect()
        if metric.name.startswith("coin_")
        for suffix in SUFFIXES.get(metric.type, ("",))
    }


def settings_of(unit: Path) -> list[tuple[str, str]]:
    found = [line.partition("=") for line in unit.read_text().splitlines()]
    return [(key, value) for key, separator, value in found if separator and key[0] != "#"]


def test_alerts_ask_for_metrics_that_there_are() -> None:
    asked = {*re.findall(r"\bcoin_[a-z0-9_]+", ALERTS)}
    assert asked
    assert asked <= names()


def test_alerts_ask_for_label_values_that_there_are() -> None:
    assert {*re.findall(r'outcome="(\w+)"', ALERTS)} <= {"crashed", "resumed", "used", "refused"}
    assert {*re.findall(r'id_source="(\w+)"', ALERTS)} <= {"sampled", "retokenized"}


def test_every_alert_is_explained() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    explained = re.findall(r"^\| `(Coin\w+)` \|", DOCS, re.MULTILINE)
    assert sorted(alerts) == sorted(explained)


def test_every_metric_is_explained_and_no_other() -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names()}
    assert {*re.findall(r"`(coin_[a-z_]+)", DOCS)} - {"coin_<name>"} >= families
    written = {*re.findall(r"^\| (`coin_.*?) \|", DOCS, re.MULTILINE)}
    explained = {name for row in written for name in re.findall(r"`(coin_[a-z_]+)", row)}
    assert explained == families


def test_every_setting_is_explained_as_the_code_has_it() -> None:
    for setting in describe_settings(ProviderSettings):
        default = setting.default
        shown = default if default in {"", "required"} else f"`{default}`"
        assert f"| `{setting.name}` | {shown} | {setting.text} |" in DOCS


def test_the_example_file_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*os.environ]:
        if variable.startswith("COIN_"):
            monkeypatch.delenv(variable)
    text = (DEPLOY / "provider.toml").read_text()
    assert load_settings(ProviderSettings, DEPLOY / "provider.toml").name == "acme"
    # What is commented out can be used as well.
    whole = re.sub(r"^# (\[\w+\]|\w+ = \")", r"\1", text, flags=re.MULTILINE)
    assert {*tomllib.loads(whole)} - {"gateway"} <= {*ProviderSettings.model_fields}
    assert "tls" in tomllib.loads(whole)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_set_what_there_is_and_stop_later_than_the_grace_period(unit: Path) -> None:
    found = settings_of(unit)
    known = {
        setting.variable
        for kind in (ProviderSettings, WitnessSettings, NodeSettings)
        for setting in describe_settings(kind)
    } | {"COIN_CACHE_DIR", "COIN_DATA_DIR"}
    given = {value.partition("=")[0] for key, value in found if key == "Environment"}
    assert {name for name in given if name.startswith("COIN_")} <= known
    grace = ProviderSettings.model_fields["grace_seconds"].default
    if unit.stem == "coin-gateway":
        fields = Settings.model_fields
        grace = fields["grace_seconds"].default + fields["abort_seconds"].default
    assert int(dict(found)["TimeoutStopSec"]) > grace + CLOSING_SECONDS
    assert dict(found)["User"] != "root"
    assert dict(found)["ProtectSystem"] == "strict"


def test_units_serve_metrics_on_ports_of_their_own() -> None:
    listening = [
        value
        for unit in UNITS
        for key, value in settings_of(unit)
        if key == "Environment" and re.match(r"COIN_\w*METRICS_LISTEN=127\.0\.0\.1:", value)
    ]
    assert len({value.rpartition(":")[2] for value in listening}) == len(UNITS) == 6


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    # It looks for the program, which is installed elsewhere.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
    copy = tmp_path / unit.name
    copy.write_text(text)
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],  # noqa: S607 - wherever it is
        capture_output=True,
        check=False,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert unit.name not in found.stderr


def test_the_images_run_as_nobody_in_particular_and_hold_no_secret() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    copied = re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE)
    assert not [
        source for source in copied if re.search(r"key|secret|\.toml(?<!project.toml)", source)
    ]
    variables = {*re.findall(r"\b(COIN_[A-Z_]+)=", text)}
    known = {
        setting.variable
        for kind in (ProviderSettings, NodeSettings)
        for setting in describe_settings(kind)
    }
    assert variables - {"COIN_CACHE_DIR", "COIN_DATA_DIR", "COIN_GATEWAY_HOST"} <= known


def test_folders_that_the_afternoon_writes_to_are_made_in_it() -> None:
    listed = (DEPLOY / "systemd" / "coin.tmpfiles").read_text().splitlines()
    made = {line.split()[1] for line in listed if line.startswith("d ")}
    tables = re.findall(r"COIN_CACHE_DIR=(/\S+)", DOCS)
    assert tables
    assert {*tables, "/var/lib/coin/keys", "/etc/coin"} <= made
