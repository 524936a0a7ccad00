"""Backup and restore, across databases; retention."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select, update

from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.v1 import verifier_service_pb2 as pb
from tests.support.databases import KINDS
from tests.support.nodes import lease, node_database
from tests.support.submissions import bundle, decided, submission, submit, took
from verifier_sdk.memory.tables import MEMORY_BLOCK
from verifier_sdk.node.service import as_message
from verifier_sdk.store.archive import back_up, restore
from verifier_sdk.store.claims import Budget, claim_next, claim_this, extend
from verifier_sdk.store.reading import find_audit, find_bundle
from verifier_sdk.store.retention import purge
from verifier_sdk.store.tables import AUDIT, FILE, HANDED_IN, PURGED, SPENT, WORKER


def block(number: int, at: float) -> dict[str, object]:
    """Return the row of a remembered block."""
    return {
        "provider": "acme",
        "profile_sha256": bytes(32),
        "commitment_sha256": bytes(32),
        "block_index": number,
        "vector_sha256": bytes(32),
        "vector": b"vector",
        "remembered_at": at,
    }


def filled(engine: Engine) -> None:
    """Fill a database with what a node comes to keep."""
    submit(engine, *(submission(number, model=f"m{number}é\n") for number in range(7)))
    decided(engine, took(engine, budgets={}, default_budget=Budget(9, 9)), bundle(p_value=0.2))
    with engine.begin() as connection:
        connection.execute(insert(WORKER).values(worker_id="w", started_at=1.5, beat_at=2.5))


def contents(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return [
            connection.execute(select(table).order_by(*table.primary_key.columns)).all()
            for table in (AUDIT, FILE, SPENT)
        ]


@pytest.mark.parametrize("to", KINDS)
def test_what_is_backed_up_can_be_restored_anywhere(
    either_engine: Engine, tmp_path: Path, to: str
) -> None:
    filled(either_engine)
    path = tmp_path / "backup.zip"
    rows = back_up(either_engine, path)
    assert rows["audit"] == 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with node_database(to, tmp_path) as other:
        assert restore(other, path) == rows
        assert contents(other) == contents(either_engine)
        # New rows are numbered after the old ones.
        submit(other, submission(99))
        with other.connect() as connection:
            assert connection.execute(select(func.max(AUDIT.c.number))).scalar() == 8
            assert connection.execute(select(func.count()).select_from(WORKER)).scalar() == 0


def test_a_backup_overwrites_nothing_and_fills_no_database_in_use(
    engine: Engine, tmp_path: Path
) -> None:
    filled(engine)
    path = tmp_path / "backup.zip"
    back_up(engine, path)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match="never overwrites"):
        back_up(engine, path)
    assert path.read_bytes() == before
    with pytest.raises(InvalidInputError, match="not empty"):
        restore(engine, path)


def _rewritten(path: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    other = path.with_name("edited.zip")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as edited:
        for name in archive.namelist():
            raw = edit(name, archive.read(name))
            if raw is not None:
                edited.writestr(name, raw)
    return other


def _manifest(**changes: object) -> Callable[[str, bytes], bytes]:
    def edit(name: str, raw: bytes) -> bytes:
        return json.dumps(json.loads(raw) | changes).encode() if name == "manifest.json" else raw

    return edit


DAMAGED: dict[str, tuple[Callable[[str, bytes], bytes | None], type[Exception], str]] = {
    "a row is gone": (
        lambda name, raw: raw.partition(b"\n")[2] if name == "audit_file.jsonl" else raw,
        VerificationError,
        "damaged",
    ),
    "a row is altered": (
        lambda _, raw: raw.replace(b"acme", b"icme"),
        VerificationError,
        "damaged",
    ),
    "a row is no row": (
        lambda name, raw: b"[1]\n" + raw if name == "audit.jsonl" else raw,
        VerificationError,
        "damaged",
    ),
    "a table is gone": (
        lambda name, raw: None if name == "audit.jsonl" else raw,
        InvalidInputError,
        "cannot be read",
    ),
    "no manifest": (
        lambda name, raw: None if name == "manifest.json" else raw,
        InvalidInputError,
        "cannot be read",
    ),
    "another format": (_manifest(format="zip"), InvalidInputError, "format"),
    "another release": (_manifest(revision="9999"), InvalidInputError, "release"),
    "an unknown table": (
        _manifest(tables={"users": {"rows": 0, "sha256": ""}}),
        InvalidInputError,
        "does not know",
    ),
    "a manifest of another kind": (_manifest(tables=[1]), InvalidInputError, "none of a backup"),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_backup_fills_nothing(engine: Engine, tmp_path: Path, name: str) -> None:
    filled(engine)
    path = tmp_path / "backup.zip"
    back_up(engine, path)
    edit, error, told = DAMAGED[name]
    with node_database("sqlite", tmp_path) as other:
        with pytest.raises(error, match=told):
            restore(other, _rewritten(path, edit))
        with other.connect() as connection:
            assert connection.execute(select(func.count()).select_from(AUDIT)).scalar() == 0


def test_what_is_no_zip_is_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(b"PK")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        restore(engine, path)


def test_conversations_are_deleted_past_their_retention_and_figures_are_kept(
    either_engine: Engine,
) -> None:
    engine = either_engine
    submit(engine, submission(1), submission(2), submission(3, drawn=None), submission(4))
    submit(engine, submission(5))
    old, new, running = took(engine), took(engine), took(engine)
    decided(engine, old, bundle(p_value=0.5))
    decided(engine, new, bundle())
    with engine.begin() as connection:
        connection.execute(
            update(AUDIT)
            .where(AUDIT.c.audit_id != new.audit_id)
            .values(decided_at=1.0, submitted_at=1.0)
        )
    with engine.begin() as connection:
        for number, at in enumerate((1.0, 2e10)):
            connection.execute(insert(MEMORY_BLOCK).values(block(number, at)))
    # The one that is being audited is not touched; one that waits for a year will never be.
    assert purge(engine, days=365) == 3
    assert claim_next(engine, lease()) is None
    assert claim_this(engine, submission(5).audit_id, lease()) is None
    assert extend(engine, running, lease())
    with engine.connect() as connection:
        assert connection.execute(select(MEMORY_BLOCK.c.block_index)).scalars().all() == [1]
    row = find_audit(engine, old.audit_id)
    assert row is not None
    assert (row.state, row.p_value) == (PURGED, 0.5)
    assert find_bundle(engine, old.audit_id) is None
    assert find_bundle(engine, new.audit_id) is not None
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(FILE)).scalar() == 2
    assert purge(engine, days=365) == 0
    # Handed in again it is known, and not audited again.
    assert submit(engine, submission(1)) == [PURGED]


def test_an_audit_that_was_purged_before_it_was_made_is_not_shown_as_decided(
    engine: Engine,
) -> None:
    submit(engine, submission(1), submission(2))
    assert decided(engine, took(engine), bundle())
    assert purge(engine, days=-1) == 2
    made, never = (find_audit(engine, submission(number).audit_id) for number in (1, 2))
    assert made is not None
    assert never is not None
    assert as_message(made).state == pb.AUDIT_STATE_DECIDED
    assert as_message(never).state == pb.AUDIT_STATE_ERROR
    assert "nothing is said of the provider" in as_message(never).error


def test_a_purge_leaves_nothing_in_the_write_ahead_log(engine: Engine) -> None:
    log = Path(f"{engine.url.database}-wal")
    with engine.begin() as connection:
        connection.execute(insert(MEMORY_BLOCK).values(block(1, 1.0)))
    assert log.stat().st_size > 0
    assert purge(engine, days=365) == 0
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(MEMORY_BLOCK)).scalar() == 0
    assert log.stat().st_size == 0


def test_a_purge_forgets_what_was_counted_on_days_that_are_over(either_engine: Engine) -> None:
    engine = either_engine
    submit(engine, submission(1))
    took(engine, budgets={}, default_budget=Budget(9, 9))
    with engine.begin() as connection:
        connection.execute(insert(SPENT).values(provider="acme", day=1, audits=1, chosen=0))
        connection.execute(insert(HANDED_IN).values(client="", day=1, receipts=1, bytes=1))
    purge(engine, days=365)
    with engine.connect() as connection:
        for table in (SPENT, HANDED_IN):
            days = connection.execute(select(table.c.day)).scalars().all()
            assert len(days) == 1
            assert days[0] > 1
