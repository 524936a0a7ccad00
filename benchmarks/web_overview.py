"""How long the first page of a verifier node takes, with 100,000 audits in SQLite.

Measured is the server's time: the request goes into the application and comes out as a page, with
the session looked up, all figures read and the template filled; no socket is between. The audits
are spread over a month once, and come from a single day once, when every figure of the last hours
and days is one of all of them.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import Engine, insert
from starlette.testclient import TestClient

from benchmarks._common import least_seconds, report
from coin_protocol.database.engine import open_engine, writing
from coin_protocol.v1 import receipt_pb2 as pb
from verifier_sdk.store import tables
from verifier_sdk.store.metadata import METADATA
from verifier_sdk.store.tables import AUDIT
from verifier_sdk.web.accounts import AccountFile, make_account_line
from verifier_sdk.web.app import web_app
from verifier_sdk.web.sessions import Sessions
from verifier_sdk.web.settings import WebSettings

_AUDITS: Final = 100_000
_PROVIDERS: Final = 12
_BATCH: Final = 2_000
_DAY: Final = 86_400.0
_LIMIT: Final = 300.0
_OUTCOMES: Final = (pb.OUTCOME_PASS, pb.OUTCOME_FAIL, pb.OUTCOME_INCONCLUSIVE)


def _row(rng: random.Random, submitted: float, now: float) -> dict[str, Any]:
    decided = submitted + rng.lognormvariate(2, 1.2)
    done = decided < now and rng.random() < 0.98
    values: dict[str, Any] = dict.fromkeys(column.name for column in AUDIT.columns)
    del values["number"]
    values.update(
        audit_id=rng.randbytes(32),
        provider=f"provider-{rng.randrange(_PROVIDERS)}",
        model=f"model-{rng.randrange(5)}",
        session_id=rng.randbytes(16),
        commitment_sha256=rng.randbytes(32),
        request_sha256=rng.randbytes(32),
        reasoning_tokens=rng.randrange(40_000),
        submitted_at=submitted,
        submitted_by="client",
        state=tables.DECIDED if done else tables.QUEUED,
        drawn=tables.BY_SHARE,
        priority=0,
        attempts=1,
    )
    if done:
        values.update(
            decided_at=decided,
            outcome=rng.choices(_OUTCOMES, (90, 2, 8))[0],
            tier=pb.TIER_TIMED,
            fault=0,
            p_value=rng.random(),
            share_low=0.0,
            share_high=rng.random(),
            exposed_tokens=100,
            rounds=1,
            log_evidence=rng.gauss(-1, 1),
            verdict_sha256=rng.randbytes(32),
        )
    return values


def _fill(engine: Engine, now: float, seconds: float) -> None:
    rng = random.Random(1)  # noqa: S311 - nothing secret
    METADATA.create_all(engine)
    with writing(engine) as connection:
        for start in range(0, _AUDITS, _BATCH):
            rows = [
                _row(rng, now - seconds * (1 - number / _AUDITS), now)
                for number in range(start, start + _BATCH)
            ]
            connection.execute(insert(AUDIT), rows)


@contextmanager
def _visitor(folder: Path, now: float, seconds: float) -> Iterator[TestClient]:
    """Give a client that is logged in to a node whose audits came within so many seconds."""
    accounts = folder / "accounts"
    accounts.write_text(make_account_line("ada", "correct horse battery"))
    accounts.chmod(0o600)
    engine = open_engine(f"sqlite:///{folder / 'node.db'}")
    try:
        _fill(engine, now, seconds)
        settings = WebSettings(accounts=accounts)
        app = web_app(engine=engine, log=None, providers=(), settings=settings, clock=lambda: now)
        sessions = Sessions(engine, lambda: now, 3600.0)
        token = sessions.start(AccountFile(accounts).accounts()["ada"])
        with TestClient(app, base_url="http://127.0.0.1") as client:
            client.cookies.set(settings.cookie_name, token)
            yield client
    finally:
        engine.dispose()


def main() -> None:
    """Measure and print."""
    now = time.time()
    for name, days in (("month", 30.0), ("day", 1.0)):
        with (
            tempfile.TemporaryDirectory() as folder,
            _visitor(Path(folder), now, days * _DAY) as client,
        ):

            def fetch(path: str, client: TestClient = client) -> None:
                # Who is not logged in would be led to another page, which takes less.
                reply = client.get(path, follow_redirects=False).raise_for_status()
                if reply.status_code != httpx.codes.OK:
                    msg = f"{path} is answered with {reply.status_code}"
                    raise RuntimeError(msg)

            overview, listing, provider = least_seconds(
                lambda: fetch("/"),
                lambda: fetch("/audits?sort=tokens&outcome=pass"),
                lambda: fetch("/providers/provider-1"),
                rounds=7,
                clock=time.perf_counter,
            )
        of = f"web_overview.{name}"
        report(f"{of}.overview", 1e3 * overview, unit="ms", better="lower", limit=_LIMIT)
        report(f"{of}.list_by_tokens", 1e3 * listing, unit="ms", better="lower")
        report(f"{of}.provider", 1e3 * provider, unit="ms", better="lower")


if __name__ == "__main__":
    main()
