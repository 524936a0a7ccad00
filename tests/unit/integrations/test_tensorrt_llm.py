"""The post-processing hook, called as TensorRT-LLM's guide and source describe it.

A recording: the package needs CUDA and does not install here. `tests.support.recordings` says
which release was read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest

from coin_protocol.errors import MissingDependencyError
from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.integrations import tensorrt_llm
from provider_sdk.integrations.host import Host
from provider_sdk.integrations.tensorrt_llm import LOST_NOTE, CoinHook, Expected
from provider_sdk.record import KeptReply
from tests.integration.gateway.standing import commitment
from tests.support.hosts import Hosts
from tests.support.parties import Parties
from tests.support.recordings import PostProcessorHookChunk
from tests.support.upstreams import EOS, Script

INTERFACE = "tensorrt_llm.executor.postprocessor_hook"
NONCE = bytes(range(16))


class Bench:
    """A hook, and what its provider keeps."""

    def __init__(self, hook: CoinHook) -> None:
        self.hook = hook

    @property
    def host(self) -> Host:
        return self.hook._host

    def replies(self, response_id: str, caller: bytes = b"") -> list[KeptReply]:
        """Wait until a reply has come to its end, and return what is kept of it."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = self.host.provider.replies(response_id, caller)
            if found and all(reply.choice is not None for reply in found):
                return found
            time.sleep(0.005)
        raise AssertionError(response_id)

    def commitment(self, response_id: str, caller: bytes = b"") -> statements_pb2.Commitment:
        (reply,) = self.replies(response_id, caller)
        assert reply.choice is not None
        return commitment(delivery_pb2.Delivery(choices=[reply.choice]))


@contextmanager
def standing(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Bench]:
    """Give a hook over a provider of its own."""
    module = ModuleType(INTERFACE)
    module.emit = lambda text: ("emit", text)  # type: ignore[attr-defined] # as recorded
    for name in ("tensorrt_llm", "tensorrt_llm.executor"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, INTERFACE, module)
    opened: list[Any] = []

    def held(opening: Any) -> Any:
        opened.append(opening)
        return opening.__enter__()

    # Closed at the end of the test instead of the process.
    monkeypatch.setattr(tensorrt_llm, "open_for_good", held)
    yield Bench(CoinHook(Hosts(Parties(), **settings)()))
    opened[0].__exit__(None, None, None)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with standing(monkeypatch) as made:
        yield made


def chunks(
    script: Script, request_id: int = 1, size: int = 4, output: int = 0, **last: Any
) -> list[PostProcessorHookChunk]:
    """Return what an engine would call the hook with."""
    ids = script.ids
    found, text = [], ""
    for at in range(0, len(ids), size):
        part = ids[at : at + size]
        spelled = b"".join(SmallTokenizer().token_bytes(i) for i in part if i != EOS).decode()
        text += spelled
        final = at + size >= len(ids)
        more = {"is_final": final, **(last if final else {})}
        found.append(PostProcessorHookChunk(request_id, output, spelled, text, part, **more))
    return found


def test_the_ids_are_committed_to_as_they_were_sampled(bench: Bench) -> None:
    script = Script()
    said = [bench.hook(chunk) for chunk in chunks(script)]
    found = bench.commitment(f"trtllm-{bench.hook.run}-1-0")
    assert found.reasoning_tokens == len(script.reasoning_ids)
    assert found.id_source == statements_pb2.ID_SOURCE_SAMPLED
    assert found.answer_sha256 == sha256(script.answer.encode()).digest()
    assert found.abort_reason == statements_pb2.ABORT_REASON_UNSPECIFIED
    # What the client sees is the server's business: every text passes as it came.
    assert said == [("emit", chunk.text_diff) for chunk in chunks(script)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_how_the_ids_were_cut_changes_nothing(bench: Bench, size: int) -> None:
    for chunk in chunks(Script(), size=size):
        bench.hook(chunk)
    found = bench.commitment(f"trtllm-{bench.hook.run}-1-0")
    assert found.reasoning_tokens == len(Script().reasoning_ids)


def test_what_is_expected_is_what_is_committed_to(bench: Bench) -> None:
    known = Expected(b'{"a": 1}', NONCE, b"c" * 32, "chatcmpl-7", "acme-9")
    bench.hook.expect(1, known)
    for chunk in chunks(Script()):
        bench.hook(chunk)
    found = bench.commitment("chatcmpl-7", b"c" * 32)
    assert found.request_sha256 == sha256(b'{"a": 1}').digest()
    assert (found.client_nonce, found.model) == (NONCE, "acme-9")
    assert bench.host.provider.replies("chatcmpl-7", b"d" * 32) == []


def test_requests_and_outputs_do_not_mix(bench: Bench) -> None:
    scripts = {
        (request, output): Script(reasoning="because " * (1 + request + 3 * output))
        for request in range(3)
        for output in range(2)
    }
    every = [chunks(script, *key[:1], 4, key[1]) for key, script in scripts.items()]
    for place in range(max(map(len, every))):
        for each in every:
            if place < len(each):
                bench.hook(each[place])
    for (request, output), script in scripts.items():
        found = bench.commitment(f"trtllm-{bench.hook.run}-{request}-{output}")
        assert found.reasoning_tokens == len(script.reasoning_ids)


def test_an_aborted_request_is_signed_as_a_part(bench: Bench) -> None:
    first = chunks(Script())[:8]
    for chunk in first:
        bench.hook(chunk)
    bench.hook(PostProcessorHookChunk(1, 0, "", "", [], is_final=True, aborted=True))
    found = bench.commitment(f"trtllm-{bench.hook.run}-1-0")
    assert found.abort_reason == statements_pb2.ABORT_REASON_CANCELLED
    assert 0 < found.reasoning_tokens < len(Script().reasoning_ids)


def test_a_request_that_falls_silent_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hook(chunks(Script())[0])
    monkeypatch.setattr(bench.hook, "_silence", 0.0)
    for chunk in chunks(Script(), request_id=2)[-1:]:
        bench.hook(chunk)
    found = bench.commitment(f"trtllm-{bench.hook.run}-1-0")
    assert found.abort_reason == statements_pb2.ABORT_REASON_CANCELLED


def test_what_comes_after_a_long_silence_begins_no_other_reply(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *late = chunks(Script())
    bench.hook(first)
    with monkeypatch.context() as patched:
        patched.setattr(bench.hook, "_silence", 0.0)
        bench.hook(chunks(Script(), request_id=2)[-1])
    for chunk in late[:-1]:
        assert bench.hook(chunk) == ("emit", chunk.text_diff)
        assert not bench.hook._replies
    bench.hook(late[-1])
    assert not bench.hook._lost
    found = bench.commitment(f"trtllm-{bench.hook.run}-1-0")
    assert found.abort_reason == statements_pb2.ABORT_REASON_CANCELLED


def test_an_output_that_was_lost_keeps_no_other_from_being_swept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hook(PostProcessorHookChunk(7, 0, "\ud800", "\ud800", [65], is_final=False))
    bench.hook(chunks(Script())[0])
    monkeypatch.setattr(bench.hook, "_silence", 0.0)
    bench.hook(chunks(Script(), request_id=2)[-1])
    found = bench.commitment(f"trtllm-{bench.hook.run}-1-0")
    assert found.abort_reason == statements_pb2.ABORT_REASON_CANCELLED


def test_ids_outside_the_vocabulary_leave_the_receipt_missing(bench: Bench) -> None:
    for chunk in chunks(Script())[:4]:
        bench.hook(chunk)
    bad = PostProcessorHookChunk(1, 0, "x", "x", [10**6], is_final=True)
    assert bench.hook(bad) == ("emit", "x")
    _until(lambda: _missing(bench) == 1)


def test_a_failure_of_ours_passes_the_text_and_counts_as_missing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    first, second, *rest = chunks(script)
    bench.hook(first)

    def fail(*_: object) -> None:
        msg = "a bug"
        raise RuntimeError(msg)

    with monkeypatch.context() as patched:
        patched.setattr(bench.hook, "_sweep", fail)
        assert bench.hook(second) == ("emit", second.text_diff)
    assert [bench.hook(chunk) for chunk in rest] == [("emit", chunk.text_diff) for chunk in rest]
    assert "goes without a receipt" in caplog.text
    # The part that there was is signed as one, and marked where its receipt would be looked for.
    (kept,) = bench.replies(f"trtllm-{bench.hook.run}-1-0")
    assert kept.choice is not None
    found = commitment(delivery_pb2.Delivery(choices=[kept.choice]))
    assert found.abort_reason != statements_pb2.ABORT_REASON_UNSPECIFIED
    assert LOST_NOTE in kept.choice.notes
    assert _missing(bench) == 1
    assert not bench.hook._replies


def test_a_hook_that_keeps_failing_counts_a_reply_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "a bug"
        raise RuntimeError(msg)

    monkeypatch.setattr(bench.hook, "_begun", fail)
    for chunk in chunks(Script()):
        assert bench.hook(chunk) == ("emit", chunk.text_diff)
    assert _missing(bench) == 1
    monkeypatch.setattr(bench.hook, "_sweep", fail)
    for chunk in chunks(Script(), request_id=2):
        bench.hook(chunk)
    assert _missing(bench) == 2


def test_what_is_expected_is_kept_without_the_requests_bytes(bench: Bench) -> None:
    raw = b'{"messages": "a long request"}' * 1000
    bench.hook.expect(1, Expected(raw, NONCE, b"c" * 32, "chatcmpl-8", "acme-9"))
    assert all(not known.request for known, _ in bench.hook._expected.values())
    for chunk in chunks(Script()):
        bench.hook(chunk)
    assert bench.commitment("chatcmpl-8", b"c" * 32).request_sha256 == sha256(raw).digest()


def test_a_hook_that_is_not_to_sign_commits_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with standing(monkeypatch, sign=False) as bench:
        for chunk in chunks(Script()):
            assert bench.hook(chunk) == ("emit", chunk.text_diff)
        assert not bench.hook._replies
        assert bench.host.provider.replies(f"trtllm-{bench.hook.run}-1-0", b"") == []


def test_the_hook_is_made_anew_where_it_is_sent(bench: Bench) -> None:
    assert bench.hook.__reduce__() == (CoinHook, ())


def test_without_tensorrt_llm_it_says_what_is_missing() -> None:
    with pytest.raises(MissingDependencyError, match=INTERFACE):
        CoinHook(Hosts(Parties())())


def _missing(bench: Bench) -> float:
    return sum(
        sample.value
        for metric in bench.host.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "coin_receipts_missing_total"
    )


def _until(check: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not check():
        assert time.monotonic() < until
        time.sleep(0.005)
