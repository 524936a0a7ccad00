"""`coin conformance` against real processes: a provider, a verifier node, and programs."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.testing.small import small_profile
from tests.support.command import Done, run_coin, serving_coin
from tests.support.parties import ANSWER, REASONING, small_policy
from tests.support.replays import brisk

NAME, VERIFIER, RUNNER = "acme", "me", "coin-conformance"
QUESTION = "why is the sky blue?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a provider, a verifier and the runner's own providers; profile, policy, traces."""
    made = tmp_path_factory.mktemp("conformance")
    for name, role in ((NAME, "provider"), (VERIFIER, "verifier"), (RUNNER, "provider")):
        done = run_coin("keys", "init", made / name, "--name", name, "--role", role)
        assert done.code == 0, done.said
    (made / "profile").write_bytes(small_profile().raw)
    (made / "policy").write_bytes(small_policy(brisk).raw)
    trace = {
        "id": "sky-01",
        "domain": "physics",
        "question": QUESTION,
        "reasoning": " ".join([REASONING] * 4),
        "answer": ANSWER,
    }
    (made / "traces").write_text(json.dumps(trace))
    return made


def conformance(kind: str, *arguments: str | Path, small: bool = True) -> Done:
    return run_coin("conformance", kind, *arguments, small=small)


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {case["name"]: case["status"] for case in document["cases"]}


@pytest.fixture(scope="module")
def provider(folder: Path) -> Iterator[str]:
    with serving_coin(
        *("provider", "replay", "--keys", folder / NAME, "--name", NAME),
        *("--verifier", f"{VERIFIER}={folder / VERIFIER / 'key.pub.pem'}"),
        *("--traces", folder / "traces", "--profile", folder / "profile"),
    ) as ready:
        yield f"127.0.0.1:{ready['port']}"


def provider_options(folder: Path) -> list[str | Path]:
    return [
        *("--root", folder / NAME / "root.pub.pem"),
        *("--key", folder / VERIFIER / "key.pem", "--name", VERIFIER),
        *("--profile", folder / "profile"),
    ]


def test_a_provider_that_replays_conforms(folder: Path, provider: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    given = ("--target", provider, *provider_options(folder), "--generate", QUESTION)
    done = conformance("provider", *given, "--json", "--junit", report)
    found = statuses(done.document)
    assert "failed" not in found.values(), done.out
    assert done.code == 0
    assert {name for name, status in found.items() if status == "skipped"} == {
        "caller-without-credentials"
    }
    suite = ET.fromstring(report.read_text())[0]  # noqa: S314 - our own
    assert suite.get("tests") == str(len(found))


def test_receipts_that_were_kept_do_as_well_and_a_stranger_is_not_answered(
    folder: Path, provider: str, tmp_path: Path
) -> None:
    for number in range(2):
        out = tmp_path / f"{number}.receipt"
        done = run_coin("ask", QUESTION, "--provider", provider, "--out", out)
        assert done.code == 0, done.said
    given = ("--target", provider, "--receipts", tmp_path, "--only", "opening-*")
    assert conformance("provider", *given, *provider_options(folder)).code == 0
    strange = [
        folder / RUNNER / "key.pem" if str(one).endswith("key.pem") else one
        for one in provider_options(folder)
    ]
    done = conformance("provider", *given, *strange)
    assert done.code == 1
    assert "VERIFIER_UNKNOWN" in done.said
    assert "what to do:" in done.out


def test_a_verifier_node_conforms(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{found.getsockname()[1]}"
    logged = run_coin(
        *("verifier", "log-key", "--origin", "audits.example.org/log"),
        *("--out", tmp_path / "log.pem"),
    )
    settings = tmp_path / "verifier.toml"
    settings.write_text(
        f'name = "{VERIFIER}"\nkey = "file:{folder / VERIFIER / "key.pem"}"\n'
        f'database = "sqlite:///{tmp_path / "node.db"}"\nlisten = "127.0.0.1:0"\n'
        f'profile = "{folder / "profile"}"\npolicy = "{folder / "policy"}"\n'
        f'memory_folder = "{tmp_path / "memory"}"\nshare = 0.0\ngrace_seconds = 1\n'
        f'[log]\norigin = "audits.example.org/log"\nkey = "file:{tmp_path / "log.pem"}"\n'
        f'head_file = "{tmp_path / "head"}"\n'
        f'[providers.{RUNNER}]\nendpoint = "{listen}"\n'
        f'roots = ["{folder / RUNNER / "root.pub.pem"}"]\n'
    )
    options = [
        *("--keys", folder / RUNNER, "--listen", listen, "--traces", folder / "traces"),
        *("--verifier", f"{VERIFIER}={folder / VERIFIER / 'key.pub.pem'}"),
        *("--profile", folder / "profile", "--policy", folder / "policy"),
        *("--log-key", logged.document["vkey"], "--json"),
    ]
    some = [
        *("honest-*", "client-*", "receipt-*", "list-*", "log-*", "bundle-*", "watch-*"),
        *("lie-over-reported-bill", "lie-copied-embedding", "lie-kinder-tokens", "lie-key-ended"),
    ]
    with serving_coin("verifier", "serve", "--config", settings) as ready:
        target = f"127.0.0.1:{ready['port']}"
        only = [part for name in some for part in ("--only", name)]
        done = conformance("verifier", "--target", target, *options, *only)
        assert done.code == 0, done.out + done.err
        assert set(statuses(done.document).values()) == {"passed"}
        # Providers that the node does not call: it finds nobody there, and says what was set.
        away = [f"127.0.0.1:{int(ready['port'])}" if one == listen else one for one in options]
        done = conformance("verifier", "--target", target, *away, "--only", "honest-*")
        assert done.code == 2
        assert "cannot listen on" in done.said


PROGRAM = """
import json, sys
from hashlib import sha256

def root(leaves):
    if len(leaves) < 2:
        return sha256(b"\\0" + leaves[0] if leaves else b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\\1" + root(leaves[:half]) + root(leaves[half:])).digest()

for line in sys.stdin:
    vector = json.loads(line)
    found = root([bytes.fromhex(leaf) for leaf in vector["leaves"]])
    print(json.dumps({"holds": found.hex() == vector["root"]}), flush=True)
"""


def test_a_program_that_shares_no_code_conforms(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = shlex.join([sys.executable, str(program)])
    given = ("--command", command, "--lines", "--only", "merkle/root-*")
    done = conformance("verifier", *given, small=False)
    assert done.code == 0, done.out
    assert "0 failed, 0 skipped" in done.out
    program.write_text(PROGRAM.replace("<<", ">>"))
    assert conformance("verifier", *given, small=False).code == 1
