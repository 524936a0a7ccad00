"""What a verifier node is deployed by says what the code does: units, images, alerts, its page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coin_protocol.ops.effective import describe_settings
from coin_protocol.ops.fields import TlsSettings
from verifier_sdk.node.http_server import CLOSING_SECONDS
from verifier_sdk.node.metrics import OUTCOMES, NodeMetrics
from verifier_sdk.node.settings import (
    LogEntry,
    NatsEntry,
    NodeSettings,
    ProviderEntry,
    WitnessEntry,
    load_settings,
)
from verifier_sdk.web.settings import WebSettings

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
DOCS = (ROOT / "docs" / "verifier.md").read_text()
ALERTS = (DEPLOY / "alerts-verifier.yml").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("coin-verifier*.service"))
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
TABLES: dict[str, type[BaseModel]] = {
    "setting": NodeSettings,
    "of `[providers.NAME]`": ProviderEntry,
    "of `[tls]`": TlsSettings,
    "of `[log]`": LogEntry,
    "of `[log.witnesses.NAME]`": WitnessEntry,
    "of `[nats]`": NatsEntry,
    "of `[web]`": WebSettings,
}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def names() -> set[str]:
    """Names of the project's own metrics, as a query writes them."""
    return {
        metric.name + suffix
        for metric in NodeMetrics().registry.collect()
        if metric.name.startswith("coin_")
        for suffix in SUFFIXES.get(metric.type, ("",))
    }


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table of the page whose first column has this heading."""
    _, _, after = DOCS.partition(f"| {heading} |")
    assert after, heading
    table = after.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def settings_of(unit: Path) -> list[tuple[str, str]]:
    found = [line.partition("=") for line in unit.read_text().splitlines()]
    return [(key, value) for key, separator, value in found if separator and key[0] != "#"]


def written(field: FieldInfo) -> list[str]:
    """Return the words by which the page writes a field's default, as far as it has one."""
    if field.is_required():
        return ["required"]
    default = field.default
    if isinstance(default, list | tuple):
        return [f"{value:g}" for value in default]
    if isinstance(default, str):
        return [default] if default else []
    return [] if default is None or field.default_factory else [f"{default:g}"]


# The page


@pytest.mark.parametrize("heading", TABLES)
def test_every_setting_is_explained_with_its_default_and_no_other(heading: str) -> None:
    fields = TABLES[heading].model_fields
    explained = [(re.findall(r"`(\w+)`", first), default) for first, default, _ in rows(heading)]
    assert sorted(chain.from_iterable(names for names, _ in explained)) == sorted(fields)
    for names, default in explained:
        shown = [word.removesuffix(".0") for word in default.split(", ")]
        for word in chain.from_iterable(written(fields[name]) for name in names):
            assert word in shown, names


def test_every_metric_is_explained_and_no_other() -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names()}
    explained = [
        name for first, _ in rows("metric") for name in re.findall(r"`(coin_[a-z_]+)", first)
    ]
    assert sorted(explained) == sorted(families)


def test_every_alert_is_explained() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(alerts) == len({*alerts})
    assert sorted(alerts) == sorted(first.strip("`") for first, *_ in rows("alert"))


def test_folders_and_ports_of_the_page_are_those_of_the_units() -> None:
    listed = (DEPLOY / "systemd" / "coin-verifier.tmpfiles").read_text().splitlines()
    made = {line.split()[1] for line in listed if line.startswith("d ")}
    assert {*re.findall(r"`(/(?:etc|var/\w+)/coin-verifier[^`.]*)`", DOCS)} <= made
    for unit in UNITS:
        found = re.search(r"METRICS_LISTEN=127\.0\.0\.1:(\d+)", unit.read_text())
        assert found is not None
        assert f"{found[1]} (" in DOCS


# Alerts


def test_alerts_ask_for_metrics_that_there_are() -> None:
    asked = {*re.findall(r"\bcoin_[a-z0-9_]+", ALERTS)}
    assert asked
    assert asked <= names()


def test_alerts_ask_for_label_values_that_there_are() -> None:
    asked = re.findall(r'(\w+)="(\w+)"', ALERTS)
    assert {value for name, value in asked if name == "final"} == {"yes"}
    assert {value for name, value in asked if name == "outcome"} == {"fail", "refused"}
    assert "fail" in OUTCOMES


def test_alerts_are_what_prometheus_reads() -> None:
    (group,) = yaml.safe_load(ALERTS)["groups"]
    for rule in group["rules"]:
        assert {*rule} - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        expression = rule["expr"]
        assert expression.count("(") == expression.count(")")
    # Both files may be loaded into one Prometheus.
    provider = re.findall(r"- alert: (\w+)", (DEPLOY / "alerts.yml").read_text())
    assert not {rule["alert"] for rule in group["rules"]} & {*provider}


# Settings and units


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*os.environ]:
        if variable.startswith("COIN_"):
            monkeypatch.delenv(variable)


@pytest.mark.usefixtures("no_environment")
def test_the_example_file_can_be_used_and_so_can_what_is_commented_out(tmp_path: Path) -> None:
    text = (DEPLOY / "verifier.toml").read_text()
    assert load_settings(DEPLOY / "verifier.toml").name == "auditor"
    whole = re.sub(r"^# (\[[\w.]+\]|\w+ = )", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "whole.toml").write_text(whole)
    settings = load_settings(tmp_path / "whole.toml")
    assert settings.nats is not None
    assert settings.tls is not None
    assert settings.log is not None
    assert [*settings.log.witnesses] == ["w1"]
    assert settings.providers["acme"].endpoint == "acme.example.com:8443"
    assert {*tomllib.loads(whole)} <= {*NodeSettings.model_fields}


def test_there_is_a_unit_for_each_process() -> None:
    commands = {dict(settings_of(unit))["ExecStart"].split()[2] for unit in UNITS}
    assert commands == {"serve", "worker"}
    assert len(UNITS) == 2


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_set_what_there_is_and_stop_later_than_the_grace_period(unit: Path) -> None:
    found = settings_of(unit)
    known = {setting.variable for setting in describe_settings(NodeSettings)} | {
        "COIN_CACHE_DIR",
        "COIN_DATA_DIR",
    }
    given = {value.partition("=")[0] for key, value in found if key == "Environment"}
    assert {name for name in given if name.startswith("COIN_")} <= known
    fields = NodeSettings.model_fields
    grace = fields["grace_seconds"].default + fields["notice_seconds"].default
    assert int(dict(found)["TimeoutStopSec"]) > grace + CLOSING_SECONDS
    assert dict(found)["User"] == dict(found)["Group"] == "coin-verifier"
    assert dict(found)["LoadCredential"] == "coin_verifier:/etc/coin-verifier/credentials"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_hardened_as_the_providers_are(unit: Path) -> None:
    whose = {"StateDirectory", "CacheDirectory", "WorkingDirectory"}

    def hardening(text: str) -> list[str]:
        """Return the lines from the folders on."""
        lines = text[text.index("StateDirectory=") :].splitlines()
        return [line for line in lines if line.partition("=")[0] not in whose]

    model = (DEPLOY / "systemd" / "coin-worker.service").read_text()
    assert hardening(unit.read_text()) == hardening(model)
    assert "ProtectSystem=strict" in hardening(model)


@pytest.mark.usefixtures("no_environment")
def test_a_credential_of_the_units_is_read_as_the_setting_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # systemd names a file of the folder by the credential's own name and the file's.
    (tmp_path / "coin_verifier_database").write_text("postgresql://coin:sesame@db.example/coin\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    settings = load_settings(DEPLOY / "verifier.toml")
    assert "sesame" in settings.database.get_secret_value()
    assert "sesame" in {*settings.secret_values()}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_would_not_call_the_units_exposed(tmp_path: Path) -> None:
    for unit in UNITS:
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text())
        found = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(copy)],  # noqa: S607 - wherever it is
            capture_output=True,
            check=False,
            text=True,
        )
        assert found.returncode == 0, found.stdout + found.stderr


# Images


def test_the_image_of_the_verifier_is_built_from_what_there_is() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", CONTAINERFILE, re.MULTILINE)
    made = [stage for _, stage in stages]
    assert {"service", "worker", "verifier"} <= {*made}
    assert made[-1] == "service"
    for number, (source, _) in enumerate(stages):
        assert source in {"${PYTHON}", *made[:number]}
    assert {*re.findall(r"--from=(\S+)", CONTAINERFILE)} <= {*made}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"whl\)\[([\w,-]+)\]", CONTAINERFILE):
        assert {*extras.split(",")} <= {*project["optional-dependencies"]}


def test_the_image_of_the_verifier_serves_on_the_ports_that_it_exposes() -> None:
    stage = CONTAINERFILE[CONTAINERFILE.index("AS verifier\n") : CONTAINERFILE.index("AS service")]
    variables = {*re.findall(r"\b(COIN_VERIFIER_[A-Z_]+)=", stage)}
    assert variables
    assert variables <= {setting.variable for setting in describe_settings(NodeSettings)}
    assert "0.0.0.0:9464" in stage
    assert "127.0.0.1:9464/metrics" in CONTAINERFILE
    settings = tomllib.loads((DEPLOY / "verifier.toml").read_text())
    ports = re.findall(r"^EXPOSE (.*)$", stage, re.MULTILINE)[0].split()
    assert ports == [settings[name].rpartition(":")[2] for name in ("listen", "http_listen")]
