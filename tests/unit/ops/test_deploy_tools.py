"""What is deployed passes the programs that will read it, where they are installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
MANIFESTS = [
    file for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) if file.stem != "kustomization"
]
ALERTS = sorted(DEPLOY.glob("alerts*.yml"))
KUBERNETES = ("1.29", "1.37")
"""Releases whose schemas the manifests are held to."""
WORKERS_GONE = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'coin_workers{{job="coin-verifier", instance="node"}}', values: '{node}'}}
      - {{series: 'coin_workers{{job="coin-verifier-worker", instance="worker"}}', values: '0x9'}}
    alert_rule_test:
      - eval_time: 9m
        alertname: CoinNodeWorkersGone
        exp_alerts: {alerts}
"""
FIRING = (
    "[{exp_labels: {severity: page}, exp_annotations: "
    "{summary: 'No worker shows a sign of life: nothing is audited.'}}]"
)


NOTHING_FIRES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="{job}", instance="a"}}', values: '0x9'}}
      - {{series: 'coin_certificate_ends_timestamp_seconds{{job="{job}"}}', values: '60x9'}}
      - {{series: 'coin_reloads_total{{job="{job}", what="token", outcome="refused"}}',
         values: '0+1x9'}}
    alert_rule_test:
{wanted}
"""
QUIET = "      - {{eval_time: 9m, alertname: {}, exp_alerts: []}}\n".format


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, check=False, text=True)


@needs("promtool")
@pytest.mark.parametrize("file", ALERTS, ids=lambda file: file.stem)
def test_prometheus_takes_the_alerts(file: Path) -> None:
    found = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", file)
    assert found.returncode == 0, found.stdout + found.stderr


@needs("promtool")
@pytest.mark.parametrize(
    ("node", "alerts"),
    [
        pytest.param("0x9", FIRING, id="a node sees no worker"),
        pytest.param("1x9", "[]", id="a node sees one"),
        # A worker's own gauge stays at 0, and nothing is known while no node is asked.
        pytest.param("_x9", "[]", id="no node answers"),
    ],
)
def test_workers_are_gone_where_a_node_says_so(node: str, alerts: str, tmp_path: Path) -> None:
    case = tmp_path / "case.yml"
    rules = DEPLOY / "alerts-verifier.yml"
    case.write_text(WORKERS_GONE.format(rules=rules, node=node, alerts=alerts))
    found = run("promtool", "test", "rules", case)
    assert found.returncode == 0, found.stdout + found.stderr


@needs("promtool")
@pytest.mark.parametrize("job", ["coin-verifier", "coin-verifier-worker"])
def test_a_verifiers_processes_are_left_to_the_verifiers_alerts(job: str, tmp_path: Path) -> None:
    case, rules = tmp_path / "case.yml", DEPLOY / "alerts.yml"
    alerts = ("CoinProcessDown", "CoinCertificateEnds", "CoinReloadRefused")
    case.write_text(NOTHING_FIRES.format(rules=rules, job=job, wanted="".join(map(QUIET, alerts))))
    assert run("promtool", "test", "rules", case).returncode == 0
    # Of a process that is the provider's, each of them fires.
    for alert in alerts:
        case.write_text(NOTHING_FIRES.format(rules=rules, job="coin-gateway", wanted=QUIET(alert)))
        assert run("promtool", "test", "rules", case).returncode != 0


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="there is no kubernetes-validate here",
)
@pytest.mark.parametrize("version", KUBERNETES)
def test_the_manifests_fit_the_schemas_of_kubernetes(version: str) -> None:
    validate = [sys.executable, "-m", "kubernetes_validate", "--strict", "--no-warn"]
    found = run(*validate, "--kubernetes-version", version, *MANIFESTS)
    assert found.returncode == 0, found.stdout + found.stderr
    documents = sum(len([*yaml.safe_load_all(file.read_text())]) for file in MANIFESTS)
    assert (found.stdout + found.stderr).count(" passed for resource ") == documents


@needs("kubectl")
def test_kustomize_builds_the_manifests() -> None:
    found = run("kubectl", "kustomize", DEPLOY / "kubernetes")
    assert found.returncode == 0, found.stderr
    kinds = {document["kind"] for document in yaml.safe_load_all(found.stdout)}
    assert {"StatefulSet", "Deployment", "ConfigMap", "NetworkPolicy"} <= kinds


def test_the_startup_probe_runs_as_the_file_that_it_is_mounted_as(tmp_path: Path) -> None:
    (node,) = (
        document
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / "node.yaml").read_text())
        if document["kind"] == "StatefulSet"
    )
    (main,) = node["spec"]["template"]["spec"]["containers"]
    command = main["startupProbe"]["exec"]["command"]
    script = tmp_path / Path(command[-1]).name
    (settings,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "settings.yaml").read_text())
    script.write_text(settings["data"][script.name])
    found = run(sys.executable, *command[1:-1], script)
    # It got past its imports, one of which has its own name, to the file that is not here.
    assert "'/etc/coin/tls/ca.crt'" in found.stderr.splitlines()[-1]


@needs("systemd-sysusers")
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="it asks for root")
def test_the_users_of_the_units_are_made(tmp_path: Path) -> None:
    for folder in ("etc", "usr/lib/sysusers.d"):
        (tmp_path / folder).mkdir(parents=True)
    for file in (DEPLOY / "systemd").glob("*.sysusers"):
        shutil.copy(file, tmp_path / "usr/lib/sysusers.d" / f"{file.stem}.conf")
    found = run("systemd-sysusers", f"--root={tmp_path}")
    assert found.returncode == 0, found.stderr
    made = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    units = (DEPLOY / "systemd").glob("*.service")
    assert made == {re.findall(r"^User=(.+)$", unit.read_text(), re.MULTILINE)[0] for unit in units}
