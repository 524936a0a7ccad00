"""The recorder keeps what a client saw of a reply, and when by its own clock."""

from __future__ import annotations

import pytest

from coin_protocol import envelope
from coin_protocol.checks import run_checks
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.keyset import stamp
from coin_protocol.limits import NONCE_MAX_BYTES, NONCE_MIN_BYTES
from coin_protocol.receipt import RECEIPT_FORMAT, read_receipt, to_json
from coin_protocol.v1 import envelope_pb2, receipt_pb2, statements_pb2
from provider_sdk.provider import Provider
from tests.support.parties import Clock, Parties, reasoning_ids, run_session
from verifier_sdk.recorder import Recorder

COMMITMENT = envelope_pb2.Envelope(payload=b"commitment", payload_type=envelope.COMMITMENT)
KEY_SET = envelope_pb2.Envelope(payload=b"key set", payload_type=envelope.KEY_SET)


def finish(recorder: Recorder) -> receipt_pb2.Receipt:
    return recorder.finish(commitment=COMMITMENT, key_set=KEY_SET)


def test_times_are_those_of_the_clients_clock_at_each_event() -> None:
    clock = Clock(1_700_000_000_000_000_000)
    recorder = Recorder(request=b"request", clock=clock)
    clock.advance(1.0)
    recorder.checkpoint(COMMITMENT)
    clock.advance(0.5)
    recorder.checkpoint(COMMITMENT)
    clock.advance(0.25)
    recorder.answer_delta("first")
    clock.advance(0.125)
    recorder.answer_delta("last")
    clock.advance(60.0)
    receipt = finish(recorder)
    start = receipt.sent_at.ToNanoseconds()
    assert start == 1_700_000_000_000_000_000
    seen = [entry.seen_at.ToNanoseconds() - start for entry in receipt.checkpoints]
    assert seen == [1_000_000_000, 1_500_000_000]
    assert receipt.answer_first_at.ToNanoseconds() - start == 1_750_000_000
    assert receipt.answer_last_at.ToNanoseconds() - start == 1_875_000_000


def test_an_answer_in_one_piece_begins_and_ends_at_once() -> None:
    clock = Clock()
    recorder = Recorder(request=b"", clock=clock)
    clock.advance(1.0)
    recorder.answer_delta("all of it")
    receipt = finish(recorder)
    assert receipt.answer_first_at == receipt.answer_last_at
    assert receipt.answer == b"all of it"


def test_the_answer_is_the_exact_bytes_of_its_pieces() -> None:
    recorder = Recorder(request=b"")
    for piece in (" né", "e\u0301", "", "\n\n", "终", "\u0000"):
        recorder.answer_delta(piece)
    assert finish(recorder).answer == " née\u0301\n\n终\u0000".encode()


def test_empty_pieces_are_no_answer() -> None:
    clock = Clock()
    recorder = Recorder(request=b"", clock=clock)
    recorder.answer_delta("")
    recorder.answer_delta("")
    receipt = finish(recorder)
    assert receipt.answer == b""
    assert not receipt.HasField("answer_first_at")
    assert not receipt.HasField("answer_last_at")


def test_an_empty_piece_at_the_end_does_not_move_the_last_time() -> None:
    clock = Clock()
    recorder = Recorder(request=b"", clock=clock)
    recorder.answer_delta("word")
    clock.advance(5.0)
    recorder.answer_delta("")
    receipt = finish(recorder)
    assert receipt.answer_last_at == receipt.answer_first_at


def test_an_answer_that_is_given_as_a_whole_keeps_the_times_of_its_pieces() -> None:
    clock = Clock()
    recorder = Recorder(request=b"", clock=clock)
    start = clock.nanoseconds
    for _ in range(3):
        clock.advance(1.0)
        recorder.answer_seen()
    receipt = recorder.finish(commitment=COMMITMENT, key_set=KEY_SET, answer=b'{"tool_calls":[]}')
    assert receipt.answer == b'{"tool_calls":[]}'
    assert receipt.answer_first_at.ToNanoseconds() - start == 1_000_000_000
    assert receipt.answer_last_at.ToNanoseconds() - start == 3_000_000_000


def test_every_recorder_has_a_nonce_of_its_own() -> None:
    nonces = {Recorder(request=b"").client_nonce for _ in range(100)}
    assert len(nonces) == 100
    assert all(NONCE_MIN_BYTES <= len(nonce) <= NONCE_MAX_BYTES for nonce in nonces)


def test_a_nonce_that_the_client_chose_is_kept() -> None:
    recorder = Recorder(request=b"", client_nonce=b"n" * 16)
    assert recorder.client_nonce == b"n" * 16
    assert finish(recorder).client_nonce == b"n" * 16


def test_checkpoints_are_kept_in_the_order_seen_as_they_were_signed() -> None:
    recorder = Recorder(request=b"")
    signed = [envelope_pb2.Envelope(payload=bytes((number,))) for number in (2, 1, 1)]
    for one in signed:
        recorder.checkpoint(one)
    assert [entry.checkpoint for entry in finish(recorder).checkpoints] == signed


def test_the_bill_is_kept_where_the_client_was_told_one() -> None:
    usage = statements_pb2.Usage(prompt_tokens=3)
    receipt = Recorder(request=b"").finish(commitment=COMMITMENT, key_set=KEY_SET, billed=usage)
    assert receipt.billed == usage
    assert not finish(Recorder(request=b"")).HasField("billed")


def test_the_summary_is_kept_where_there_was_one() -> None:
    receipt = Recorder(request=b"").finish(
        commitment=COMMITMENT, key_set=KEY_SET, summary=b"I counted."
    )
    assert receipt.summary == b"I counted."
    assert not finish(Recorder(request=b"")).HasField("summary")


def test_the_certificates_of_the_root_are_kept_as_they_came() -> None:
    chain = (b"leaf", b"intermediate")
    recorder = Recorder(request=b"")
    receipt = recorder.finish(commitment=COMMITMENT, key_set=KEY_SET, root_chain=chain)
    assert tuple(receipt.root_chain) == chain
    for raw in (receipt.SerializeToString(), to_json(receipt).encode()):
        assert tuple(read_receipt(raw).root_chain) == chain
    assert not finish(Recorder(request=b"")).root_chain


def test_a_receipt_can_be_read_back_in_both_forms(provider: Provider) -> None:
    receipt = run_session(provider, reasoning_ids(20)).receipt
    assert receipt.format == RECEIPT_FORMAT
    assert read_receipt(receipt.SerializeToString()) == receipt
    assert read_receipt(to_json(receipt).encode()) == receipt


def test_the_receipt_of_an_honest_reply_passes_the_checks(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider, reasoning_ids(64))
    report = run_checks(reply.case(parties))
    assert report.failed is None, report.detail
    assert report.passed("ARRIVAL_TIME")


def test_a_part_past_its_limit_makes_no_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coin_protocol.receipt.MAX_TEXT_BYTES", 10)
    recorder = Recorder(request=b"")
    recorder.answer_delta("eleven bytes")
    with pytest.raises(LimitError, match="answer has length 12; at most 10"):
        finish(recorder)


def test_a_nonce_past_its_limit_makes_no_receipt() -> None:
    with pytest.raises(LimitError, match="client_nonce has length 65"):
        finish(Recorder(request=b"", client_nonce=bytes(65)))


def test_limits_are_invalid_input() -> None:
    assert issubclass(LimitError, InvalidInputError)


def test_a_clock_before_1970_is_no_reason_to_lose_a_receipt() -> None:
    receipt = finish(Recorder(request=b"", clock=Clock(-1_500_000_000)))
    assert receipt.sent_at.ToNanoseconds() == -1_500_000_000
    assert receipt.sent_at.ToDatetime() == stamp(receipt.sent_at.ToDatetime()).ToDatetime()
