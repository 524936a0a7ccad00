"""The page of the log: its head, its witnesses, and proofs that anybody can follow."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.database.engine import writing
from coin_protocol.log_leaf import CommitmentLeaf
from coin_protocol.merkle import leaf_hash, verify_inclusion
from coin_protocol.note import NoteVerifier
from tests.support.web_site import (
    NOW,
    ORIGIN,
    WebNode,
    add_audits,
    decided_values,
    fill_log,
    log_signer,
    rows_of,
    visiting,
    witness_key,
)
from verifier_sdk.log.tables import HEAD
from verifier_sdk.web.log_reader import Head, Inclusion
from verifier_sdk.web.views.proofs import BROKEN, INCLUDED, NO_LOG, WAITING, prove


def _verifiers() -> list[NoteVerifier]:
    return [witness_key(seed).verifier for seed in (1, 2, 3)]


def _hashes(page: str, head: str) -> list[bytes]:
    found = re.search(rf"<dt>{head}</dt><dd>.*?([0-9a-f]{{64,}})", page, re.DOTALL)
    assert found is not None, head
    return [bytes.fromhex(found[1])]


def test_the_newest_head_is_told_with_who_cosigned_it(filled: WebNode, reader: TestClient) -> None:
    page = reader.get("/log").text
    assert ORIGIN in page
    assert "1 of 3 cosigned it, 0 are wanted" in page
    assert page.count("witness-") == 3
    assert '<time datetime="2026-09-21T14:13:15.000Z"' in page
    raw = reader.get("/log/checkpoint")
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert raw.headers["content-disposition"].startswith('attachment; filename="checkpoint-')
    verified = verify_checkpoint(raw.content, log_signer().verifier, _verifiers(), 1)
    assert [one.name for one in verified.cosignatures] == ["witness-1.example"]
    assert verified.checkpoint.root.hex() in page
    assert filled.log is not None
    head = filled.log.head()
    assert head is not None
    assert (head.size, head.cosigned) == (verified.checkpoint.size, 1)


def test_an_entry_is_found_by_audit_commitment_and_leaf(
    filled: WebNode, reader: TestClient
) -> None:
    row = rows_of(filled, 1)[0]
    leaf = CommitmentLeaf(row.provider, bytes(row.session_id), bytes(row.commitment_sha256))
    hashed = leaf_hash(leaf.to_bytes())
    pages = {
        what: reader.get(f"/log?find={value.hex()}").text
        for what, value in (
            ("audit", bytes(row.audit_id)),
            ("commitment", bytes(row.commitment_sha256)),
            ("leaf", hashed),
        )
    }
    for what, page in pages.items():
        assert hashed.hex() in page, what
        assert "its proof leads to that head" in page
    assert pages["audit"].count("<article") == 2
    assert pages["leaf"].count("<article") == 1
    assert leaf.to_bytes().hex() in pages["audit"]
    assert leaf.to_bytes().hex() not in pages["leaf"]
    assert f'href="/audits/{row.audit_id.hex()}"' in pages["commitment"]
    assert reader.get(f"/log?find={row.audit_id.hex().upper()}").text.count("<article") == 2


def test_the_proof_on_the_page_holds(filled: WebNode, reader: TestClient) -> None:
    row = rows_of(filled, 3)[2]
    leaf = CommitmentLeaf(row.provider, bytes(row.session_id), bytes(row.commitment_sha256))
    hashed = leaf_hash(leaf.to_bytes())
    page = reader.get(f"/log?find={hashed.hex()}").text
    index, size = (
        int(one.replace(",", ""))
        for one in re.search(r"<dt>Index</dt><dd>([0-9,]+) of ([0-9,]+)", page).groups()  # type: ignore[union-attr]
    )
    listed = re.search(r'<ol class="proof".*?</ol>', page, re.DOTALL)
    assert listed is not None
    proof = [bytes.fromhex(one) for one in re.findall(r">([0-9a-f]{64})<", listed[0])]
    (root,) = _hashes(page, "Root")
    verify_inclusion(leaf_hash=hashed, index=index, size=size, proof=proof, root=root)
    assert f"{len(proof)} hashes" in page


def test_what_is_not_there_is_not_found(reader: TestClient) -> None:
    page = reader.get(f"/log?find={'0' * 64}").text
    assert "Neither an audit nor an entry of the log has this digest." in page
    assert reader.get("/log?find=abc").status_code == 400
    assert reader.get("/log?find=%3Cscript%3E").status_code == 400


def test_an_entry_that_no_head_covers_yet_waits(filled: WebNode, reader: TestClient) -> None:
    row = rows_of(filled, 100)[50]
    page = reader.get(f"/log?find={row.audit_id.hex()}").text
    assert "under the newest head" in page
    assert "not yet" in page
    assert "status-skipped" in reader.get(f"/audits/{row.audit_id.hex()}").text


def test_a_quorum_is_wanted_of_the_newest_head(empty: WebNode, tmp_path: Path) -> None:
    add_audits(empty.engine, [decided_values(number) for number in range(3)])
    fill_log(empty, tmp_path, rows_of(empty, 3), quorum=2)
    with visiting(empty) as client:
        assert "none that enough witnesses cosigned" in client.get("/log").text
        assert client.get("/log/checkpoint").status_code == 404
    fill_log(empty, tmp_path, [], quorum=1)
    with visiting(empty) as client:
        page = client.get("/log").text
        assert "1 of 3 cosigned it, 1 are wanted" in page
        assert ">enough<" in page


def test_growth_is_of_the_whole_life_of_the_log(empty: WebNode, tmp_path: Path) -> None:
    add_audits(empty.engine, [decided_values(number) for number in range(5)])
    fill_log(empty, tmp_path, rows_of(empty, 5))
    assert empty.log is not None
    with writing(empty.engine) as connection:
        connection.execute(delete(HEAD).where(HEAD.c.size == 4))
    points = list(empty.log.growth())
    assert [size for _, size in points] == [2, 6, 8, 10]
    assert [at for at, _ in points] == sorted(at for at, _ in points)


def test_a_log_that_cannot_prove_what_it_holds_is_told(empty: WebNode, tmp_path: Path) -> None:
    add_audits(empty.engine, [decided_values(number) for number in range(3)])
    fill_log(empty, tmp_path, rows_of(empty, 3))
    assert empty.log is not None
    row = rows_of(empty, 1)[0]
    leaf = CommitmentLeaf(row.provider, bytes(row.session_id), bytes(row.commitment_sha256))
    hashed = leaf_hash(leaf.to_bytes())
    assert prove(empty.log, hashed).state == INCLUDED

    class Liar:
        """Gives a proof for another place."""

        def head(self) -> Head | None:
            return None

        def inclusion(self, leaf_hash: bytes) -> Inclusion | None:
            assert empty.log is not None
            found = empty.log.inclusion(leaf_hash)
            assert found is not None
            return replace(found, index=found.index ^ 1)

        def growth(self) -> list[tuple[float, int]]:
            return []

    assert prove(Liar(), hashed).state == BROKEN
    assert prove(None, hashed).state == NO_LOG
    assert prove(empty.log, bytes(32)).state == WAITING


def test_a_node_without_a_log_says_so(empty: WebNode) -> None:
    with visiting(empty) as client:
        page = client.get("/log").text
    assert "This node keeps no log." in page
    assert "None was found." in page


def test_evidence_is_listed_and_handed_out(reader: TestClient) -> None:
    page = reader.get("/log").text
    files = re.findall(r'href="(/log/evidence/([0-9a-f]{64})\.binpb)"', page)
    assert len(files) == 2
    for path, evidence_id in files:
        response = reader.get(path)
        assert response.content.startswith(b"evidence ")
        assert response.headers["content-disposition"] == (
            f'attachment; filename="coin-evidence-{evidence_id[:16]}.binpb"'
        )
    assert "&lt;script&gt;alert(1)&lt;/script&gt; signed two" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize("session", [b"", bytes(15)])
def test_a_row_that_no_leaf_can_be_made_of_has_no_entries(empty: WebNode, session: bytes) -> None:
    row = decided_values(1, session_id=session, submitted_at=NOW)
    add_audits(empty.engine, [row])
    with visiting(empty) as client:
        assert client.get(f"/audits/{row['audit_id'].hex()}").status_code == 200
        page = client.get(f"/log?find={row['audit_id'].hex()}").text
    assert "Neither an audit nor an entry" in page
