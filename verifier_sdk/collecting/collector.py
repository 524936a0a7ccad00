"""What is done with each reply at its end: write its receipts, ask again, tell what is missing."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from coin_protocol.errors import InvalidInputError, MissingDependencyError
from coin_protocol.v1 import delivery_pb2
from coin_protocol.vendors import CONVENTIONS
from verifier_sdk.collecting.exchange import VENDOR, Exchange
from verifier_sdk.collecting.hooks import Hooks
from verifier_sdk.collecting.http import Client, library_of
from verifier_sdk.collecting.keeping import Form, keeper
from verifier_sdk.collecting.later import (
    Asking,
    Origin,
    Pending,
    ask_on_loop,
    ask_on_thread,
    settled,
)
from verifier_sdk.collecting.problems import Problem, ProblemKind, Reporter
from verifier_sdk.collecting.settling import Kept, Settled, settle
from verifier_sdk.collecting.worker import Worker

C = TypeVar("C")

_WRITER: Final = Worker("coin-receipts")
_ASKER: Final = Worker("coin-receipts-later", exit_seconds=4.0)


class Collector:
    """Keeps a receipt of every reply, and never stands in a reply's way.

    One may serve any number of clients, threads and event loops.
    """

    def __init__(
        self,
        to: Path | str,
        *,
        form: Form = "json",
        asserted: bool = False,
        vendor: str = VENDOR,
        on_problem: Callable[[Problem], object] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Say where receipts go.

        Args:
            to: A folder, which gets a file for each; or a file whose name ends in `.jsonl`, which
                gets a line for each. Either may be shared by several processes.
            form: Of the files in a folder: `json` or `binpb`.
            asserted: Also keep a line of usage and times for each reply that comes without a
                receipt: in the file, or in `asserted.jsonl` in the folder.
            vendor: By whose convention the usage blocks are read, a key of
                `coin_protocol.vendors.CONVENTIONS`.
            on_problem: Called, on a thread of ours, with each receipt that is not kept. The first
                of each kind is logged in any case.
            clock: Nanoseconds since 1970; by default, for each reply, one that never runs
                backwards.

        Raises:
            InvalidInputError: Nothing can be kept at `to`, or an option has no such value.
        """
        if vendor not in CONVENTIONS:
            msg = f"no usage convention is called {vendor!r}; use one of {', '.join(CONVENTIONS)}"
            raise InvalidInputError(msg)
        if form not in ("json", "binpb"):
            msg = f"receipts have no form {form!r}; use json or binpb"
            raise InvalidInputError(msg)
        self.vendor = vendor
        self.clock = clock
        self._keeper = keeper(Path(to), form)
        self._asserted = asserted
        self._reporter = Reporter(on_problem)
        self._serving: set[str] = set()
        self._asking: Pending = {}

    def client(self, **options: object) -> Client:
        """Return an HTTP client for `OpenAI(http_client=…)`, with that package's own defaults.

        Args:
            options: Of `httpx.Client`: `proxy`, `verify`, `timeout` and so on.

        Raises:
            MissingDependencyError: OpenAI's client is not installed.
        """
        return self.attach(_default_client("DefaultHttpxClient")(**options))

    def async_client(self, **options: object) -> Client:
        """Return the same for `AsyncOpenAI(http_client=…)`."""
        return self.attach(_default_client("DefaultAsyncHttpxClient")(**options))

    def attach(self, client: C) -> C:
        """Have the receipts collected of replies that pass through a client of your own.

        Args:
            client: Of httpx or httpx2, sync or async. Its event hooks are added to.

        Returns:
            The same client.

        Raises:
            InvalidInputError: It is neither's.
        """
        library, any_client = library_of(client), cast("Any", client)
        hooks = Hooks(self, library, client)
        sync = isinstance(client, library.Client)
        before = any_client.event_hooks
        # Ours come last before the request leaves, and first when the reply comes.
        any_client.event_hooks = {
            "request": [*before["request"], hooks.requested if sync else hooks.requested_async],
            "response": [hooks.responded if sync else hooks.responded_async, *before["response"]],
        }
        return client

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until what came so far is on disk; say whether it is.

        The end of the process waits for that by itself. From a coroutine, await it on a thread:
        `await asyncio.to_thread(collector.flush)`.

        Args:
            timeout: Seconds.
        """
        done = _WRITER.flush(timeout) and _ASKER.flush(timeout)
        asked = settled(self._asking, timeout)
        return _WRITER.flush(timeout) and done and asked

    def starts(self) -> None:
        """Get ready to write: called before each request is sent."""
        _WRITER.start()

    def report(self, kind: ProblemKind, message: str, response_id: str = "") -> None:
        """Tell of a problem. Never raises."""
        self._reporter.report(Problem(kind, message, response_id))

    def ended(self, exchange: Exchange, origin: Origin, asking: Asking) -> None:
        """Have the receipts of a reply that is over written, on another thread."""
        _WRITER.put(partial(self._guarded, self._settle, exchange, origin, asking))

    def _guarded(self, work: Callable[..., None], exchange: Exchange, *more: object) -> None:
        try:
            work(exchange, *more)
        except Exception as error:  # noqa: BLE001 - a bug of ours; its text may be the reply's
            why = f"no receipt is kept: a bug of ours ({type(error).__name__})"
            self.report(ProblemKind.INTERNAL, why, exchange.reply.response_id)

    def _settle(self, exchange: Exchange, origin: Origin, asking: Asking) -> None:
        settled = settle(exchange)
        if settled.served:
            self._serving.add(origin.url)
        self._write(settled.receipts)
        known = origin.url in self._serving
        name = exchange.reply.response_id
        if settled.late and known and name:
            asking(origin, name, partial(self._found, exchange, settled))
        else:
            self._tell(exchange, settled, unheard=settled.late and known)

    def _found(
        self, exchange: Exchange, settled: Settled, delivery: delivery_pb2.Delivery | None
    ) -> None:
        """Go on, on the thread that writes, with what came of asking again."""
        _WRITER.put(partial(self._guarded, self._complete, exchange, settled, delivery))

    def _complete(
        self, exchange: Exchange, settled: Settled, delivery: delivery_pb2.Delivery | None
    ) -> None:
        if delivery is None:
            self._tell(exchange, settled, unheard=True)
            return
        again = settle(exchange, delivery)
        written = {kept.choice for kept in settled.receipts}
        self._write([kept for kept in again.receipts if kept.choice not in written])
        self._tell(exchange, again, unheard=False)

    def _write(self, receipts: Sequence[Kept]) -> None:
        for kept in receipts:
            try:
                self._keeper.keep(kept)
            except InvalidInputError as error:
                self.report(ProblemKind.WRITE, str(error), kept.response_id)

    def _tell(self, exchange: Exchange, settled: Settled, *, unheard: bool) -> None:
        """Tell what is missing for good."""
        for problem in settled.problems:
            self._reporter.report(problem)
        name = exchange.reply.response_id
        if unheard and not settled.problems:
            why = "no receipt is kept: none came with the reply, nor when it was asked for"
            self.report(ProblemKind.INCOMPLETE, why, name)
        if self._asserted and settled.note is not None:
            try:
                self._keeper.note(settled.note)
            except InvalidInputError as error:
                self.report(ProblemKind.WRITE, str(error), name)

    def asking(self, client: Client, loop: AbstractEventLoop | None) -> Asking:
        """Return how a reply that came through a client is asked for again.

        Args:
            client: Of httpx or httpx2.
            loop: On which it is awaited; None for one that is not.
        """
        if loop is None:
            return partial(ask_on_thread, client, _ASKER)
        return partial(ask_on_loop, client, loop, self._asking)


def _default_client(name: str) -> type[Client]:
    try:
        import openai
    except ImportError as error:
        msg = (
            "receipts are collected from the client of the package openai: install it, or give "
            "your own client of httpx to Collector.attach"
        )
        raise MissingDependencyError(msg) from error
    found: type[Client] = getattr(openai, name)
    return found
