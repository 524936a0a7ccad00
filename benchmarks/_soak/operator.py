"""Who looks after a node: reads its pages, checks its log, scrapes its metrics, now and then."""

from __future__ import annotations

import asyncio
import base64
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from coin_protocol.checkpoint import Checkpoint, verify_checkpoint
from coin_protocol.merkle import leaf_hash, verify_consistency, verify_inclusion
from coin_protocol.note import NoteVerifier
from tests.support.parties import PROVIDER

ACCOUNT: Final = "ann"
PASSWORD: Final = "correct horse battery"  # noqa: S105 - of a node that lives for an hour

_PAUSE: Final = 2.0
_ROUNDS_TO_LOGIN: Final = 15
_TIMEOUT: Final = 30.0
_TILE: Final = 256
_FORM_TOKEN: Final = re.compile(r'name="token" value="([0-9a-f]+)"')
_AUDIT: Final = re.compile(r'href="(/audits/[0-9a-f]{64})"')
_PAGES: Final = (
    "/",
    "/audits",
    "/audits?outcome=pass&sort=tokens&dir=desc",
    f"/providers/{PROVIDER}",
    "/log",
    "/readyz",
)


Step = Callable[[], Awaitable[object]]


async def scrape(client: httpx.AsyncClient, port: int) -> Mapping[str, float]:
    """Return the metrics of a process that have no labels."""
    reply = await client.get(f"http://127.0.0.1:{port}/metrics")
    families = text_string_to_metric_families(reply.raise_for_status().text)
    return {
        sample.name: sample.value
        for family in families
        for sample in family.samples
        if not sample.labels
    }


@dataclass
class Operator:
    """One operator with a browser, and the tools of whoever watches a log.

    Attributes:
        client: With the URL of the node's HTTP.
        log: Key of its log.
        done: What was read how often.
        failures: What went wrong: no answer, or a log that proves something else than it said.
    """

    client: httpx.AsyncClient
    log: NoteVerifier
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _seen: Checkpoint | None = None
    _chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - no secret

    async def look(self) -> None:
        """Look at one thing after the other until cancelled."""
        pages: list[Step] = [partial(self._read, page) for page in _PAGES]
        round_ = [*pages, self._read_an_audit, self._check_log]
        for step in cycle([self._log_in, *round_ * _ROUNDS_TO_LOGIN]):
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - noted, and the operator looks on
                self.failures.append(f"{type(error).__name__}: {error}"[:500])
            await asyncio.sleep(_PAUSE)

    async def _read(self, path: str) -> httpx.Response:
        reply = await self.client.get(path)
        self.done["pages"] += 1
        # A login that is over would lead to another page.
        reply.raise_for_status()
        return reply

    async def _log_in(self) -> None:
        self.client.cookies.clear()
        form = await self._read("/login")
        found = _FORM_TOKEN.search(form.text)
        assert found is not None  # noqa: S101 - the form has one
        given = {"token": found[1], "next": "/", "name": ACCOUNT, "password": PASSWORD}
        headers = {"origin": str(self.client.base_url).rstrip("/")}
        reply = await self.client.post("/login", data=given, headers=headers)
        if reply.status_code != httpx.codes.SEE_OTHER:
            reply.raise_for_status()
        self.done["logins"] += 1

    async def _read_an_audit(self) -> None:
        """Read the page of an audit, and take its bundle."""
        listed = await self._read("/audits?outcome=pass")
        found: Sequence[str] = sorted(set(_AUDIT.findall(listed.text)))
        if found:
            path = self._chance.choice(found)
            await self._read(path)
            await self._read(f"{path}/bundle.binpb")
            self.done["bundles"] += 1

    async def _check_log(self) -> None:
        """Check the newest head: it goes on from the last one, and an entry is in it."""
        note = await self.client.get("/checkpoint")
        if note.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return  # nothing is signed yet
        head = verify_checkpoint(note.raise_for_status().content, self.log).checkpoint
        old, self._seen = self._seen, head
        if old is not None and old.size < head.size:
            proof = await self._asked("consistency", old=old.size, new=head.size)
            verify_consistency(
                old_size=old.size,
                new_size=head.size,
                old_root=old.root,
                new_root=head.root,
                proof=_decoded(proof["proof"]),
            )
        index = self._chance.randrange(head.size)
        (data,) = _decoded((await self._asked("entries", start=index, count=1))["entries"])
        proof = await self._asked("inclusion", index=index, size=head.size)
        verify_inclusion(
            leaf_hash=leaf_hash(data),
            index=index,
            size=head.size,
            proof=_decoded(proof["proof"]),
            root=head.root,
        )
        if head.size >= _TILE:
            await self._read("/tile/0/000")
        self.done["proofs"] += 1

    async def _asked(self, what: str, **given: int) -> dict[str, Any]:
        reply = await self.client.get(f"/coin/v1/log/{what}", params=given)
        found: dict[str, Any] = reply.raise_for_status().json()
        return found


def _decoded(texts: Sequence[str]) -> list[bytes]:
    return [base64.b64decode(text) for text in texts]


@asynccontextmanager
async def operating(port: int, vkey: str) -> AsyncIterator[Operator]:
    """Have an operator look until the block ends.

    Args:
        port: Of the node's HTTP.
        vkey: Of its log.
    """
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT) as client:
        operator = Operator(client, NoteVerifier.from_vkey(vkey))
        looking = asyncio.create_task(operator.look())
        try:
            yield operator
        finally:
            looking.cancel()
            await asyncio.wait([looking])
