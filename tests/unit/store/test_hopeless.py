"""What cannot be done for one session holds up no other, and no commitment outlives its blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url, select, text, update

from coin_protocol.database.engine import reading, writing
from coin_protocol.encoding import digest
from coin_protocol.errors import ConfigurationError, StoreUnavailableError
from coin_protocol.profile import Profile
from coin_protocol.statements import read_commitment
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import statements_pb2
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.record import ReplyRef
from provider_sdk.recovery import recover
from provider_sdk.store import KeySealer, SqlStore
from provider_sdk.store.jobs import purge
from provider_sdk.store.tables import BLOCK, PURGED, SESSION
from provider_sdk.store.writer import SessionLostError
from tests.support.parties import Parties
from tests.unit.store.conftest import MakeStore
from tests.unit.store.test_jobs import opened, soon
from tests.unit.store.test_sql_store import REF, reply

CANCELLED = statements_pb2.ABORT_REASON_CANCELLED


def spoil_oldest(store: SqlStore) -> None:
    """Change a byte of the secrets that were sealed first."""
    with writing(store.engine) as connection:
        row = connection.execute(select(SESSION).order_by(SESSION.c.opened_at)).first()
        assert row is not None
        spoiled = row.secrets[:-1] + bytes([row.secrets[-1] ^ 1])
        connection.execute(
            update(SESSION).where(SESSION.c.session_id == row.session_id).values(secrets=spoiled)
        )


# One session, and the others


async def test_a_session_that_does_not_unseal_does_not_stop_the_workers(
    parties: Parties, store: SqlStore
) -> None:
    failures: list[None] = []
    with parties.provider(store=store) as provider:
        hopeless = digest((await reply(provider)).choice.commitment.payload)
        key = digest((await reply(provider, ReplyRef("resp-2"))).choice.commitment.payload)
        spoil_oldest(store)
        worker = FingerprintWorker(provider, store, failed=lambda: failures.append(None))
        assert worker.run_once()
        assert worker.run_once()
        assert not worker.run_once()  # put off
        assert provider.manifest(key)
        assert len(failures) == 1
        with pytest.raises(ConfigurationError, match="changed"):
            provider.manifest(hopeless)


@pytest.mark.parametrize("why", ["tampered", "another sealing key"])
async def test_a_session_that_does_not_unseal_does_not_stop_recovery(
    parties: Parties, make_store: MakeStore, why: str
) -> None:
    other = KeySealer.generate() if why == "another sealing key" else None
    first = make_store(lease_seconds=0.3, **({"sealer": other} if other else {}))
    second, living = make_store(lease_seconds=0.3), make_store(lease_seconds=0.3)
    with (
        parties.provider(store=first) as one,
        parties.provider(store=second) as two,
        parties.provider(store=living) as after,
    ):
        for provider, ref in ((one, ReplyRef("resp-2")), (two, REF)):
            session = opened(provider, ref)
            session.append(list(range(8)))
            await session.flush()
        if other is None:
            spoil_oldest(living)
        first.writer.close()
        second.writer.close()
        assert await soon(lambda: recover(after, living)) == 1
        assert recover(after, living) == 0  # tried again, in vain
        (kept,) = after.replies("resp-1", REF.caller)
        assert kept.choice is not None
        (kept,) = after.replies("resp-2", b"")
        assert kept.choice is None


async def test_a_commitment_of_another_profile_says_so(
    parties: Parties, make_store: MakeStore
) -> None:
    with parties.provider(store=make_store()) as provider:
        key = digest((await reply(provider)).choice.commitment.payload)
    message = small_profile().message
    message.caps.min_tokens += 1
    other = make_store(profile=Profile.from_bytes(message.SerializeToString(deterministic=True)))
    with pytest.raises(ConfigurationError, match="the profile that it had"):
        other.get(key)


# Blocks


async def test_what_has_begun_is_taken_however_far_the_disk_is_behind(
    parties: Parties, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with parties.provider(store=store) as provider:
        session = opened(provider)
        monkeypatch.setattr("provider_sdk.store.writer._MOST_WAITING", 0)
        session.append(list(range(20)))
        with pytest.raises(StoreUnavailableError, match="behind"):
            opened(provider, ReplyRef("resp-2"))
        done = await session.abort(CANCELLED)
        key = digest(done.choice.commitment.payload)
        assert store.get(key).token_ids.slice(0, 20).tolist() == list(range(20))


async def test_no_commitment_is_kept_where_a_block_could_not_be(
    parties: Parties, store: SqlStore
) -> None:
    with parties.provider(store=store) as provider:
        session = opened(provider)
        session.append(list(range(8)))
        assert len(await session.flush()) == 1
        add_block = store.safe.block_row
        spoiled = add_block(session.session_id, 1, session._session.block(0))
        spoiled["token_count"] = None  # no database takes it
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(store.safe), "block_row", lambda *_: spoiled)
            session.append(list(range(8)))
        assert await session.flush() == []
        session.append(list(range(8)))
        with pytest.raises(SessionLostError):
            await session.abort(CANCELLED)
        assert recover(provider, store) == 1
        (kept,) = provider.replies("resp-1", REF.caller)
        assert kept.choice is not None
        assert read_commitment(kept.choice.commitment.payload).reasoning_tokens == 8


# Retention


async def test_what_nobody_could_close_loses_its_secrets_with_the_rest(
    parties: Parties, make_store: MakeStore
) -> None:
    dead = make_store(lease_seconds=0.3, sealer=KeySealer.generate())
    living = make_store(lease_seconds=0.3)
    with parties.provider(store=dead) as before, parties.provider(store=living) as after:
        session = opened(before)
        session.append(list(range(8)))
        await session.flush()
        still = opened(after, ReplyRef("resp-2"))
        still.append(list(range(8)))
        await still.flush()
        dead.writer.close()
        assert purge(living, older_than_seconds=-1.0) == 0  # its turn to be closed comes first

        def tried() -> int:
            recover(after, living)
            return purge(living, older_than_seconds=-1.0)

        assert await soon(tried) == 1
        with reading(living.engine) as connection:
            row = connection.execute(select(SESSION).where(SESSION.c.state == PURGED)).one()
            assert (row.session_id, row.secrets) == (session.session_id, None)
            left = connection.execute(select(BLOCK.c.session_id)).scalars().all()
            assert left == [still.session_id]
        assert after.replies("resp-1", REF.caller) == []
        assert (await still.abort(CANCELLED)).choice.commitment


async def test_what_was_deleted_is_in_no_file_of_sqlite(
    parties: Parties, make_store: MakeStore, url: str
) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL's files are its vacuum's")
    store = make_store()
    path = Path(str(make_url(url).database))
    with parties.provider(store=store) as provider:
        await reply(provider)
        FingerprintWorker(provider, store).run_once()
        with reading(store.engine) as connection:
            row = connection.execute(select(BLOCK)).first()
            secret = connection.execute(select(SESSION.c.secrets)).scalar_one()
        assert row is not None
        assert purge(store, older_than_seconds=-1.0) == 1
        files = [path, path.with_name(f"{path.name}-wal")]
        on_disk = b"".join(file.read_bytes() for file in files if file.exists())
        for sealed in (row.ids, row.windows[:64], secret):
            assert sealed not in on_disk


# Names from outside, and the server's settings


@pytest.mark.parametrize("name", ["nul \0 in it", "half a \ud800 pair", "\0" * 256, "名" * 256])
async def test_any_name_of_a_reply_is_kept_and_found(
    parties: Parties, store: SqlStore, name: str
) -> None:
    with parties.provider(store=store) as provider:
        done = await reply(provider, ReplyRef(name))
        (kept,) = provider.replies(name, b"")
        assert kept.choice == done.choice


def test_postgresql_syncs_its_commits_whatever_its_settings(
    make_store: MakeStore, url: str
) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite is told by a pragma")
    store = make_store()
    name = make_url(url).database
    with store.engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit TO off"))
    for _ in range(2):
        with reading(make_store().engine) as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
