"""The manifests of a verifier node name what there is, agree with its settings, hold no key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coin_protocol.ops.effective import describe_settings
from verifier_sdk.node.http_server import CLOSING_SECONDS
from verifier_sdk.node.settings import NodeSettings, load_settings

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
DOCS = (ROOT / "docs" / "verifier.md").read_text()
USER = 10001
"""Of the images."""

Manifest = dict[str, Any]
DOCUMENTS: list[Manifest] = [
    document
    for file in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]
WORKLOADS = [one for one in DOCUMENTS if one["kind"] in {"Deployment", "StatefulSet"}]


def only(kind: str) -> Manifest:
    (found,) = (one for one in DOCUMENTS if one["kind"] == kind)
    return found


def pod_of(workload: Manifest) -> Manifest:
    pod: Manifest = workload["spec"]["template"]["spec"]
    return pod


def containers(workload: Manifest) -> list[Manifest]:
    pod = pod_of(workload)
    return [*pod.get("initContainers", []), *pod["containers"]]


def leaves(value: object) -> Iterator[str]:
    """Give every string in a manifest."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, str):
        yield value


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeSettings:
    """Those of the ConfigMap."""
    monkeypatch.delenv("COIN_VERIFIER_CONFIG", raising=False)
    file = tmp_path / "verifier.toml"
    file.write_text(only("ConfigMap")["data"]["verifier.toml"])
    return load_settings(file)


def by_component(workload: Manifest) -> Any:
    return pytest.param(workload, id=workload["metadata"]["name"])


each_workload = pytest.mark.parametrize("workload", [*map(by_component, WORKLOADS)])


def test_every_file_is_applied_but_the_optional_one() -> None:
    files = {file.name for file in FOLDER.glob("*.yaml")}
    applied = {*only("Kustomization")["resources"]}
    assert files - applied == {"kustomization.yaml", "worker-autoscaler.yaml"}
    assert applied <= files
    assert len(WORKLOADS) == 2
    for one in DOCUMENTS:
        named = {"Kustomization": "coin-verifier", "Namespace": one.get("metadata", {}).get("name")}
        place = one.get("namespace") or one.get("metadata", {}).get("namespace")
        assert (place or named[one["kind"]]) == "coin-verifier"


def test_no_name_is_given_twice_to_one_kind() -> None:
    found = [
        (one["kind"], one["metadata"]["name"])
        for one in DOCUMENTS
        if one["kind"] != "Kustomization"
    ]
    assert len(found) == len({*found})


def test_nothing_here_is_a_secret(settings: NodeSettings) -> None:
    assert "Secret" not in {one["kind"] for one in DOCUMENTS}
    text = "\n".join(file.read_text() for file in FOLDER.iterdir())
    assert "BEGIN" not in text
    assert not re.search(r"://[^\s/]+@|password|pin-value", text)
    # Keys are named by files that Secrets are mounted as.
    assert settings.key.get_secret_value() == "file:/etc/coin/keys/key.pem"
    assert not {*settings.secret_values()} - {
        "file:/etc/coin/keys/key.pem",
        "file:/etc/coin/keys/log.pem",
    }


@each_workload
def test_pods_fit_the_restricted_standard(workload: Manifest) -> None:
    pod = pod_of(workload)
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == USER
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    # The Service's name makes variables that a node takes for settings.
    assert pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {*pod}
    assert {[*volume][1] for volume in pod["volumes"]} <= {"configMap", "secret", "emptyDir"}
    for container in containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
    assert f"USER {USER}:{USER}" in (ROOT / "deploy" / "Containerfile").read_text()
    enforced = only("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


@each_workload
def test_what_is_mounted_is_there_and_what_the_settings_name_is_mounted(
    workload: Manifest, settings: NodeSettings
) -> None:
    pod = pod_of(workload)
    claims = workload["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in pod["volumes"]} | {one["metadata"]["name"] for one in claims}
    for container in containers(workload):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (main,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in main["volumeMounts"]}
    provider = settings.providers["acme"]
    assert settings.log is not None
    assert settings.tls is not None
    paths = [
        settings.key.get_secret_value().removeprefix("file:"),
        settings.memory_folder,
        *provider.roots,
        *(provider.certificate, provider.key, provider.server_authorities),
    ]
    if workload["kind"] == "StatefulSet":
        paths += [
            settings.log.key.get_secret_value().removeprefix("file:"),
            *(settings.log.head_file, settings.tokens, settings.web.accounts),
            *(settings.http_certificate, settings.http_key),
            *(settings.tls.certificate, settings.tls.key),
        ]
    for path in map(str, filter(None, paths)):
        assert any(path.startswith(f"{mount}/") for mount in mounts), path
    config = main["args"][main["args"].index("--config") + 1]
    assert mounts[config]["subPath"] in only("ConfigMap")["data"]
    # What is written to is on no read-only volume, and the head file outlives the pod.
    for folder in ("/var/lib/coin", "/var/cache/coin", "/tmp"):  # noqa: S108 - of the container
        assert "readOnly" not in mounts[folder]
    if workload["kind"] == "StatefulSet":
        assert str(settings.log.head_file).startswith("/var/lib/coin/")
        assert mounts["/var/lib/coin"]["name"] == claims[0]["metadata"]["name"]


@each_workload
def test_secrets_are_named_on_the_page_with_their_keys(workload: Manifest) -> None:
    listed = {
        name: {*re.findall(r"`([\w.]+)`", keys)}
        for name, keys in re.findall(r"^\| `(coin-verifier-\w+)` \| (.*) \|$", DOCS, re.MULTILINE)
    }
    pod = pod_of(workload)
    for volume in pod["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o400
            known = listed[volume["secret"]["secretName"]]
            assert {item["key"] for item in volume["secret"].get("items", [])} <= known
        if "configMap" in volume:
            assert volume["configMap"]["name"] == only("ConfigMap")["metadata"]["name"]
    known_variables = {setting.variable for setting in describe_settings(NodeSettings)}
    for container in pod["containers"]:
        for variable in container["env"]:
            assert variable["name"] in known_variables
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["key"] in listed[reference["name"]]


def test_a_worker_has_neither_the_logs_key_nor_the_nodes() -> None:
    (worker,) = (one for one in WORKLOADS if one["kind"] == "Deployment")
    mounted = {
        volume["secret"]["secretName"]: volume["secret"]
        for volume in pod_of(worker)["volumes"]
        if "secret" in volume
    }
    assert mounted["coin-verifier-keys"]["items"] == [{"key": "key.pem", "path": "key.pem"}]
    assert {*mounted} == {"coin-verifier-keys", "coin-verifier-providers"}


def test_ports_are_those_of_the_settings(settings: NodeSettings) -> None:
    (node,) = (one for one in WORKLOADS if one["kind"] == "StatefulSet")
    (main,) = pod_of(node)["containers"]
    ports = {port["name"]: port["containerPort"] for port in main["ports"]}
    assert settings.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.http_listen == f"0.0.0.0:{ports['https']}"
    image = (ROOT / "deploy" / "Containerfile").read_text()
    assert f"COIN_VERIFIER_METRICS_LISTEN=0.0.0.0:{ports['metrics']}" in image
    assert f"127.0.0.1:{ports['grpc']}" in only("ConfigMap")["data"]["grpc_health.py"]
    services = [one for one in DOCUMENTS if one["kind"] == "Service"]
    for service in services:
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {*ports}
    assert node["spec"]["serviceName"] in {one["metadata"]["name"] for one in services}
    assert main["readinessProbe"]["httpGet"] == {
        "path": "/readyz",
        "port": "https",
        "scheme": "HTTPS",
    }
    assert main["livenessProbe"]["httpGet"] == {
        "path": "/livez",
        "port": "https",
        "scheme": "HTTPS",
    }
    assert main["startupProbe"]["exec"]["command"][-1] in {
        m["mountPath"] for m in main["volumeMounts"]
    }
    opened = {
        rule["port"]
        for one in DOCUMENTS
        if one["kind"] == "NetworkPolicy"
        for ingress in one["spec"].get("ingress", [])
        for rule in ingress["ports"]
    }
    assert opened == {*ports}


@each_workload
def test_pods_have_longer_to_stop_than_the_grace_period(
    workload: Manifest, settings: NodeSettings
) -> None:
    pod = pod_of(workload)
    (main,) = pod["containers"]
    sleep = main.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])
    seconds = settings.grace_seconds + settings.notice_seconds + CLOSING_SECONDS + int(sleep[1])
    assert pod["terminationGracePeriodSeconds"] > seconds


def test_selectors_choose_pods_that_there_are() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in WORKLOADS]
    for workload in WORKLOADS:
        chosen = workload["spec"]["selector"]["matchLabels"]
        assert chosen == workload["spec"]["template"]["metadata"]["labels"]
    for one in DOCUMENTS:
        spec = one.get("spec", {})
        chosen = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(one["kind"], lambda _: labels[0])(spec)
        assert any(chosen.items() <= found.items() for found in labels), one["metadata"]["name"]
    budgets = [one for one in DOCUMENTS if one["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == len(WORKLOADS)
    autoscaler = only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (autoscaler["kind"], autoscaler["name"]) in {
        (one["kind"], one["metadata"]["name"]) for one in WORKLOADS
    }


def test_policies_let_in_and_out_what_is_named_alone() -> None:
    policies = [one["spec"] for one in DOCUMENTS if one["kind"] == "NetworkPolicy"]
    whole = {"matchLabels": {"app.kubernetes.io/name": "coin-verifier"}}
    (everyone,) = (one for one in policies if one["podSelector"] == whole)
    assert everyone["policyTypes"] == ["Ingress", "Egress"]
    for policy in policies:
        for rule in [*policy.get("ingress", []), *policy.get("egress", [])]:
            assert rule["ports"]
    for workload in WORKLOADS:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert whole["matchLabels"].items() <= labels.items()


def test_every_string_is_printable_ascii() -> None:
    for one in DOCUMENTS:
        for text in leaves(one):
            assert text.replace("\n", "").isascii()
            assert text.replace("\n", "").isprintable()
