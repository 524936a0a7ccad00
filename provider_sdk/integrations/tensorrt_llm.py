"""Commit inside of TensorRT-LLM, by its post-processing hook.

COIN_CONFIG=provider.toml trtllm-serve MODEL \
    --post_processor_hook provider_sdk.integrations.tensorrt_llm.CoinHook

The hook is called with the ids of every chunk as they were sampled, and neither with the request
nor with the id that the client sees: `CoinHook.expect` tells it, where you run the engine
yourself. It changes no text, and whatever fails in it, the reply flows on without a receipt:
prototypes pass a chunk whose hook failed, later releases break the reply.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import orjson

from coin_protocol.errors import MissingDependencyError
from coin_protocol.limits import HASH_BYTES
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.gateway.app import all_rules
from provider_sdk.gateway.commits import Commits, Issuer
from provider_sdk.gateway.delivery import Deliveries
from provider_sdk.gateway.dialects import Endpoint, Reader, prepare, reader
from provider_sdk.gateway.headers import Nonce, RequestFacts
from provider_sdk.integrations.host import Host, host_from_environment, open_for_good
from provider_sdk.ops.metrics import missing_label
from provider_sdk.record import Received

_LOG = logging.getLogger(__name__)

_INTERFACE: Final = "tensorrt_llm.executor.postprocessor_hook"
_CLOSE_SECONDS: Final = 10.0
_MAX_EXPECTED: Final = 100_000
_REQUEST: Final = b'{"stream": true}'
# The hook is not told why a reply ended: reasoning that is open at its end may have been cut off.
_FINISH: Final = "length"

LOST_NOTE: Final = "The hook failed in the middle of the reply: this is what came before."
"""Of a reply that has no receipt, for whoever asks for it."""


class Chunk(Protocol):
    """What the hook is called with: `PostProcChunk` of prototypes, `PostProcessorHookChunk`."""

    @property
    def request_id(self) -> int:
        """The engine's number of the request."""

    @property
    def output_index(self) -> int:
        """Of the reply's choices."""

    @property
    def text_diff(self) -> str:
        """Text that is new."""

    @property
    def token_ids_diff(self) -> Sequence[int]:
        """Ids that are new."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes for this output."""

    @property
    def aborted(self) -> bool:
        """Whether the request was aborted."""


@dataclass(frozen=True)
class Expected:
    """What is known of a request beside its tokens.

    Attributes:
        request: Its exact bytes.
        client_nonce: The client's; None for one drawn here.
        caller: Digest of the caller's credentials.
        response_id: As the client sees it; empty for one of the hook's own.
        model: As the client names it.
    """

    request: bytes = field(default=b"", repr=False)
    client_nonce: bytes | None = None
    caller: bytes = field(default=b"", repr=False)
    response_id: str = ""
    model: str = ""


_UNKNOWN: Final = Expected()


@dataclass
class _Reply:
    """One output that is being generated."""

    reader: Reader
    commits: Commits
    head: Mapping[str, object]
    touched: float


class CoinHook:
    """Commits to every output of an engine. One for a process.

    Attributes:
        run: Of this instance. Without `expect`, output `j` of request `i` is the reply
            `trtllm-{run}-{i}-{j}`, for `Provider.replies` and GET /coin/v1/receipts.
    """

    def __init__(self, host: AbstractContextManager[Host] | None = None) -> None:
        """Open the provider, until the process ends.

        Args:
            host: Opens it; by default as the environment says.

        Raises:
            MissingDependencyError: TensorRT-LLM is not installed, or too old.
            ConfigurationError: A setting is missing or wrong.
        """
        self._emit = _emit()
        opening = host_from_environment() if host is None else host
        self._host, self._loop = open_for_good(_with_loop(opening))
        settings, provider = self._host.settings, self._host.provider
        self._rules = all_rules(settings, provider)[""]
        self._issuer = Issuer(
            provider,
            Deliveries(provider, settings.keep_missing),
            self._host.metrics,
            settings.vendor,
        )
        self._signs = settings.sign
        # The one that was touched last comes last.
        self._replies: OrderedDict[tuple[int, int], _Reply] = OrderedDict()
        # Closed before their end: what still comes of them belongs to no other reply.
        self._lost: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._expected: OrderedDict[int, tuple[Expected, Received]] = OrderedDict()
        self._silence = settings.first_byte_seconds
        self._lock = threading.Lock()
        self.run = secrets.token_hex(8)
        _LOG.info("replies of this process are trtllm-%s-REQUEST-OUTPUT", self.run)

    def __reduce__(self) -> tuple[type[CoinHook], tuple[()]]:
        """Be made anew in another process, where there is another provider."""
        return type(self), ()

    def __call__(self, chunk: Chunk) -> object:
        """Commit to a chunk, and let its text pass as it is. Raises nothing."""
        if not self._signs:
            return self._emit(chunk.text_diff)
        try:
            with self._lock:
                self._take(chunk)
        except Exception:  # noqa: BLE001 - a reply must not break, whatever we raise
            # Nor may it get a receipt that lacks ids.
            _LOG.exception("request %s goes without a receipt", chunk.request_id)
            self._lose(chunk)
        return self._emit(chunk.text_diff)

    def expect(self, request_id: int, expected: Expected) -> None:
        """Tell what is known of a request, when it comes: that is the time it is dated."""
        received = self._received(expected)
        with self._lock:
            # What is committed to of the request is its digest.
            self._expected[request_id] = replace(expected, request=b""), received
            while len(self._expected) > _MAX_EXPECTED:
                self._expected.popitem(last=False)

    def _take(self, chunk: Chunk) -> None:
        key = chunk.request_id, chunk.output_index
        if key in self._lost:
            if chunk.is_final:
                del self._lost[key]
            return
        if key not in self._replies:
            self._replies[key] = self._begun(*key)
        self._replies.move_to_end(key)
        reply = self._replies[key]
        reply.touched = time.monotonic()
        whole = chunk.is_final and not chunk.aborted
        document = {
            **reply.head,
            "choices": [
                {
                    "index": 0,
                    "text": chunk.text_diff,
                    "token_ids": list(chunk.token_ids_diff),
                    "finish_reason": _FINISH if whole else None,
                }
            ],
        }
        step = reply.reader.event(orjson.dumps(document))
        reply.commits.begin()
        reply.commits.take(step.pieces)
        self._sweep(reply.touched)
        if chunk.is_final:
            del self._replies[key]
            self._end(reply)

    def _begun(self, request_id: int, output: int) -> _Reply:
        known, received = self._expected.get(request_id) or (_UNKNOWN, self._received(_UNKNOWN))
        response_id = known.response_id or f"trtllm-{self.run}-{request_id}"
        if output or not known.response_id:
            response_id = f"{response_id}-{output}"
        chosen = known.client_nonce
        nonce = Nonce(
            secrets.token_bytes(HASH_BYTES) if chosen is None else chosen, chosen is not None
        )
        facts = RequestFacts(nonce, known.caller, in_chunks=False, encoded=False)
        found = reader(prepare(Endpoint.COMPLETIONS, _REQUEST), self._rules)
        commits = Commits(self._issuer, found, facts, received, model=known.model)
        head = {"id": response_id, "object": "text_completion"}
        return _Reply(found, commits, head, time.monotonic())

    def _received(self, expected: Expected) -> Received:
        return Received.of(expected.request, self._issuer.provider.clock.now())

    def _end(self, reply: _Reply) -> None:
        """Close a reply's session, on the thread that may wait for the disk."""
        self._loop.start(reply.commits.end(statements_pb2.ABORT_REASON_CANCELLED))

    def _sweep(self, now: float) -> None:
        """Close replies of which nothing has come for too long: not every end is told."""
        while self._replies:
            key, oldest = next(iter(self._replies.items()))
            if now - oldest.touched <= self._silence:
                return
            del self._replies[key]
            self._forgo(key)
            self._end(oldest)

    def _forgo(self, key: tuple[int, int]) -> None:
        """Take nothing more of an output, to its end."""
        self._lost[key] = None
        while len(self._lost) > _MAX_EXPECTED:
            self._lost.popitem(last=False)

    def _lose(self, chunk: Chunk) -> None:
        """Leave an output without a receipt, and mark it where that would be."""
        key = chunk.request_id, chunk.output_index
        with self._lock:
            lost = self._replies.pop(key, None)
            if not chunk.is_final:
                self._forgo(key)
        if lost is not None:
            self._loop.start(_marked(lost))
            return
        reason = delivery_pb2.MISSING_REASON_SIGNING_FAILED
        self._host.metrics.sessions.receipts_missing.labels(reason=missing_label(reason)).inc()


async def _marked(lost: _Reply) -> None:
    """Count a receipt as missing; sign what came before as a part whose notes say so."""
    lost.reader.malformed_stream(LOST_NOTE)
    await lost.commits.end(statements_pb2.ABORT_REASON_UPSTREAM_ERROR)
    # The end closes nothing where it fails itself.
    await lost.commits.discard()


class Loop:
    """A thread that runs coroutines, for callers that have no event loop and must not wait."""

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._waiting: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="coin-hook", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something, whatever comes of it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)

    def close(self) -> None:
        """Finish what was started, and stop."""
        wait(list(self._waiting), timeout=_CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


@contextmanager
def _with_loop(opening: AbstractContextManager[Host]) -> Iterator[tuple[Host, Loop]]:
    with opening as host:
        loop = Loop()
        try:
            yield host, loop
        finally:
            loop.close()


def _emit() -> Callable[[str], object]:
    """Return TensorRT-LLM's own way to say that a text passes."""
    try:
        found: Callable[[str], object] = importlib.import_module(_INTERFACE).emit
    except (ImportError, AttributeError) as error:
        msg = f"{_INTERFACE}.emit cannot be imported; wanted a TensorRT-LLM that has this hook"
        raise MissingDependencyError(msg) from error
    return found
