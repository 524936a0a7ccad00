"""`coin evidence verify`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coin_protocol.evidence import commitment_equivocation, head_equivocation
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import SignedKeySet, sign_key_set
from coin_protocol.receipt import write_file
from coin_protocol.signer import public_pem
from coin_protocol.v1 import evidence_pb2
from tests.support.command import Coin
from tests.support.equivocations import ForkedLog, bill_more, two_faced
from tests.support.parties import PROVIDER, Parties


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with evidence of both kinds, and what is pinned."""
    folder = tmp_path_factory.mktemp("evidence")
    log = ForkedLog()
    key = log.signer.verifier
    heads = head_equivocation(log.head(), log.head(root=b"\1" * 32), log_key=key)
    write_file(folder / "heads.binpb", heads)
    (folder / "log.vkey").write_text(key.vkey + "\n")
    (folder / "binary").write_bytes(b"\xff\xfe")
    heads.heads.second = heads.heads.first
    write_file(folder / "nothing.json", heads)
    with two_faced() as provider:
        commitments = commitment_equivocation(
            provider.honest,
            provider.signed(bill_more),
            key_set=provider.key_set,
            trust=provider.parties.trust,
        )
        (folder / "root.pem").write_bytes(public_pem(provider.parties.root.public))
    write_file(folder / "commitments.json", commitments)
    return folder


def test_two_commitments_are_code_0(coin: Coin, files: Path) -> None:
    given = files / "commitments.json", "--root", files / "root.pem"
    done = coin("evidence", "verify", *given)
    assert done.code == 0
    assert done.out.startswith("proven: 'acme' signed two commitments to session ")
    document = coin("evidence", "verify", *given, "--json").document
    assert document["proven"] is True
    assert (document["kind"], document["party"]) == ("commitments", "acme")
    assert document["finding"] in done.out
    assert len(document["subject"]) == 32
    assert len({document["first"], document["second"]}) == 2


@pytest.mark.parametrize("in_file", [True, False])
def test_two_heads_are_code_0(coin: Coin, files: Path, *, in_file: bool) -> None:
    path = files / "log.vkey"
    key = path if in_file else path.read_text().strip()
    document = coin(
        "evidence", "verify", files / "heads.binpb", "--log-key", key, "--json"
    ).document
    assert document["proven"] is True
    assert (document["kind"], document["subject"]) == ("heads", "5")
    assert (document["first"], document["second"]) == ("00" * 32, "01" * 32)


def test_what_proves_nothing_is_code_1(coin: Coin, files: Path) -> None:
    given = files / "nothing.json", "--log-key", files / "log.vkey"
    done = coin("evidence", "verify", *given)
    assert done.code == 1
    assert "they are of one tree" in done.said
    done = coin("evidence", "verify", *given, "--json")
    assert done.code == 1
    assert done.document["proven"] is False
    assert "they are of one tree" in done.document["reason"]


def test_another_logs_key_is_code_1(coin: Coin, files: Path) -> None:
    key = ForkedLog().signer.verifier.vkey
    done = coin("evidence", "verify", files / "heads.binpb", "--log-key", key)
    assert done.code == 1
    assert "none of the 1 signatures is by a known key" in done.said


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("heads.binpb", [], "give the log's verifier key"),
        ("heads.binpb", ["--log-key", "root.pem"], "verifier key"),
        ("heads.binpb", ["--log-key", "a+b+c"], "not standard base64"),
        ("heads.binpb", ["--log-key", "nowhere"], "cannot read"),
        ("heads.binpb", ["--log-key", "binary"], "holds no verifier key"),
        ("commitments.json", [], "say whom to believe"),
        ("commitments.json", ["--ca", "root.pem"], "say whom to believe"),
        ("root.pem", [], "not a evidence"),
        ("missing", [], "cannot read"),
    ],
)
def test_wrong_usage_is_code_2(
    coin: Coin, files: Path, name: str, options: list[str], said: str
) -> None:
    given = [files / each if (files / each).exists() else each for each in options]
    done = coin("evidence", "verify", files / name, *given)
    assert done.code == 2
    assert said in done.said


def test_a_caveat_is_told(coin: Coin, files: Path, tmp_path: Path) -> None:
    parties = Parties()
    now, day = datetime.now(UTC), timedelta(days=1)
    listed = ListedKey(parties.signer.public, now - day, now + day, now + timedelta(hours=1))
    key_set = sign_key_set(PROVIDER, [listed], root=parties.root, issued_at=now, sequence=2)
    with two_faced(parties) as provider:
        evidence = commitment_equivocation(
            provider.honest,
            provider.signed(bill_more),
            key_set=SignedKeySet(key_set),
            trust=parties.trust,
        )
    write_file(tmp_path / "e.json", evidence)
    (tmp_path / "root.pem").write_bytes(public_pem(parties.root.public))
    given = tmp_path / "e.json", "--root", tmp_path / "root.pem"
    assert "was revoked at" in coin("evidence", "verify", *given).out
    (caveat,) = coin("evidence", "verify", *given, "--json").document["caveats"]
    assert "was revoked at" in caveat
    wrong = coin("evidence", "verify", tmp_path / "e.json", "--root", files / "root.pem")
    assert wrong.code == 1


def test_what_others_wrote_cannot_command_the_terminal(coin: Coin, tmp_path: Path) -> None:
    log = ForkedLog()
    origin = "example.org/\x9b31m"
    first, second = (log.head(root=bytes([n]) * 32, origin=origin) for n in (1, 2))
    evidence = evidence_pb2.Evidence(
        format="coin.evidence.v1",
        heads=evidence_pb2.HeadEquivocation(first=first, second=second),
    )
    write_file(tmp_path / "e.json", evidence)
    done = coin("evidence", "verify", tmp_path / "e.json", "--log-key", log.signer.verifier.vkey)
    assert done.code == 0
    assert "\x9b" not in done.out
