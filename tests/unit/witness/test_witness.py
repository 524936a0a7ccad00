"""What a witness answers: the specification's rules, one by one."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.note import NoteSigner, add_signatures, parse_signatures, sign_note
from coin_protocol.v1 import evidence_pb2
from tests.support.witnesses import NOW, ORIGIN, Log, cosigner, note_signer, witness_over
from verifier_sdk.witness import store as stores
from verifier_sdk.witness.rules import Head, Refusal, Refused, cosigning_time, judge
from verifier_sdk.witness.store import ClockError
from verifier_sdk.witness.wire import write_request
from verifier_sdk.witness.witness import MAX_TEXT_BYTES, Cosigned, Witness, parse_logs

HASH = bytes(32)


def cosigned(witness: Witness, body: bytes) -> Cosigned:
    answer = witness.add_checkpoint(body)
    assert isinstance(answer.result, Cosigned), answer.result
    return answer.result


def refused(witness: Witness, body: bytes) -> Refused:
    answer = witness.add_checkpoint(body)
    assert isinstance(answer.result, Refused), answer.result
    return answer.result


def heads(witness: Witness) -> dict[str, int]:
    return {origin: head.size for origin, head in witness.store.heads().items()}


def test_a_head_is_cosigned_and_remembered(witness: Witness, log: Log) -> None:
    found = cosigned(witness, log.request(0))
    (signature,) = parse_signatures(found.line)
    whole = add_signatures(log.note(), [signature])
    checked = verify_checkpoint(whole, log.verifier, [witness.verifier], 1)
    assert checked.checkpoint == log.head()
    assert [one.at for one in checked.cosignatures] == [NOW]
    assert witness.store.heads()[ORIGIN] == Head(10, log.tree.root(), NOW)


def test_heads_follow_one_another_by_proof(witness: Witness, log: Log) -> None:
    last = 0
    for size in (1, 2, 2, 5, 8, 10, 10):
        cosigned(witness, log.request(last, size))
        last = size
    assert heads(witness) == {ORIGIN: 10}


def test_an_old_size_that_is_not_the_latest_is_told_the_latest(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0, 7))
    for old in (0, 3, 6, 8, 10):
        found = refused(witness, log.request(old, 10))
        assert (found.why, found.size) == (Refusal.STALE, 7)
    assert heads(witness) == {ORIGIN: 7}


def test_a_witness_never_goes_back(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0))
    for size in (0, 3, 9):
        found = refused(witness, log.request(size, size))
        assert (found.why, found.size) == (Refusal.STALE, 10)
        assert refused(witness, log.request(10, size)).why is Refusal.MALFORMED
    assert heads(witness) == {ORIGIN: 10}


def test_an_old_size_above_the_checkpoint_is_malformed(witness: Witness, log: Log) -> None:
    assert refused(witness, log.request(8, 7)).why is Refusal.MALFORMED


def test_another_root_for_the_latest_size_is_a_fork(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0))
    fork = log.branch(4, 6)
    for proof in ([], [HASH]):
        assert refused(witness, fork.request(10, proof=proof)).why is Refusal.FORKED
    assert heads(witness) == {ORIGIN: 10}


def test_a_fork_proves_nothing(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0))
    fork = log.branch(9, 7)
    assert refused(witness, fork.request(10)).why is Refusal.UNPROVEN
    log.grow(6)
    for proof in ([], log.proof(10)[:-1], [*log.proof(10), HASH], log.proof(9), [HASH]):
        assert refused(witness, log.request(10, proof=proof)).why is Refusal.UNPROVEN
    cosigned(witness, log.request(10))


def test_a_proof_between_equal_sizes_is_empty(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0))
    assert refused(witness, log.request(10, proof=[HASH])).why is Refusal.UNPROVEN


def test_the_first_head_comes_without_a_proof(witness: Witness, log: Log) -> None:
    assert refused(witness, log.request(0, proof=[HASH])).why is Refusal.UNPROVEN
    cosigned(witness, log.request(0))


def test_heads_of_no_leaves(witness: Witness) -> None:
    empty = Log()
    wrong = sign_checkpoint(Checkpoint(ORIGIN, 0, HASH), [empty.signer])
    assert refused(witness, write_request(0, [], wrong)).why is Refusal.UNPROVEN
    assert refused(witness, empty.request(0, proof=[HASH])).why is Refusal.UNPROVEN
    assert heads(witness) == {ORIGIN: 0}
    for _ in range(2):
        cosigned(witness, empty.request(0))
    cosigned(witness, Log().grow(3).request(0))
    assert refused(witness, empty.request(0)).size == 3


def test_logs_that_are_not_followed_are_unknown(witness: Witness) -> None:
    other = Log("example.org/other").grow(3)
    assert refused(witness, other.request(0)).why is Refusal.UNKNOWN_LOG
    # Nor is the followed log's key good for another origin.
    posing = sign_checkpoint(replace(other.head(), origin="x"), [Log().signer])
    assert refused(witness, write_request(0, [], posing)).why is Refusal.UNKNOWN_LOG


def test_heads_that_the_log_did_not_sign_are_refused(witness: Witness, log: Log) -> None:
    stranger = Log(seed=9).grow(10)
    assert refused(witness, stranger.request(0)).why is Refusal.UNSIGNED
    changed = log.request(0).replace(b"\n10\n", b"\n11\n")
    assert refused(witness, changed).why is Refusal.UNSIGNED
    # A line of a known key that is wrong spoils the note, whatever stands beside it.
    other = log.signer.sign("text\n")
    lines = log.note().decode() + other.line()
    assert refused(witness, write_request(0, [], lines.encode())).why is Refusal.UNSIGNED
    assert heads(witness) == {ORIGIN: 0}


def test_signatures_of_strangers_are_ignored_and_not_kept(witness: Witness, log: Log) -> None:
    noted = sign_note(log.head().text(), [note_signer("stranger", 50)], existing=log.note())
    cosigned(witness, write_request(0, [], noted))
    fork = log.branch(4, 6)
    answer = witness.add_checkpoint(fork.request(10, proof=[]))
    assert answer.evidence is not None
    assert b"stranger" not in answer.evidence


@pytest.mark.parametrize(
    "body", [b"", b"old 0\n\n", b"old 0\n\nnote", b"old 0\n\n" + b"x" * 200_000, b"\xff" * 10]
)
def test_malformed_requests_are_refused(witness: Witness, body: bytes) -> None:
    assert refused(witness, body).why is Refusal.MALFORMED


def test_a_note_that_is_no_checkpoint_is_malformed(witness: Witness, log: Log) -> None:
    for text in ("hello\n", f"{ORIGIN}\n010\n{'A' * 43}=\n"):
        noted = sign_note(text, [log.signer])
        assert refused(witness, write_request(0, [], noted)).why is Refusal.MALFORMED


def test_extensions_are_cosigned_with_the_rest(witness: Witness, log: Log) -> None:
    extended = replace(log.head(), extensions=("more",))
    noted = sign_checkpoint(extended, [log.signer])
    found = cosigned(witness, write_request(0, [], noted))
    whole = add_signatures(noted, parse_signatures(found.line))
    assert verify_checkpoint(whole, log.verifier, [witness.verifier], 1).checkpoint == extended


def test_extensions_have_an_end(witness: Witness, log: Log) -> None:
    room = MAX_TEXT_BYTES - len(log.head().text())
    for size, fits in ((room - 1, True), (room, False)):
        extended = replace(log.head(), extensions=("x" * size,))
        body = write_request(0 if fits else 10, [], sign_checkpoint(extended, [log.signer]))
        answer = witness.add_checkpoint(body)
        assert isinstance(answer.result, Cosigned) == fits
    assert isinstance(answer.result, Refused)
    assert answer.result.why is Refusal.MALFORMED


def test_either_key_of_a_log_will_do(tmp_path: Path) -> None:
    log, next_key = Log().grow(5), Log(seed=7).grow(5)
    url = f"sqlite:///{tmp_path / 'w.db'}"
    with witness_over(url, log) as first:
        both = Witness(cosigner(), {ORIGIN: (log.verifier, next_key.verifier)}, first.store)
        cosigned(both, log.request(0, 3))
        cosigned(both, next_key.request(3))


# Evidence


def evidence_of(raw: bytes | None) -> evidence_pb2.HeadEquivocation:
    assert raw is not None
    message = evidence_pb2.Evidence.FromString(raw)
    assert message.format == "coin.evidence.v1"
    assert message.WhichOneof("of") == "heads"
    return message.heads


def test_two_heads_of_one_size_are_kept_as_evidence(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0))
    fork = log.branch(4, 6)
    answer = witness.add_checkpoint(fork.request(10, proof=[]))
    heads = evidence_of(answer.evidence)
    first = verify_checkpoint(heads.first, log.verifier).checkpoint
    second = verify_checkpoint(heads.second, log.verifier).checkpoint
    assert first == log.head()
    assert second == fork.head()
    assert first.size == second.size
    assert first.root != second.root
    (entry,) = witness.store.evidence()
    assert (entry.origin, entry.size, entry.found_at) == (ORIGIN, 10, NOW)
    assert entry.sha256 == sha256(answer.evidence or b"").digest()
    assert witness.store.evidence_file(entry.sha256) == answer.evidence
    assert witness.store.evidence_file(HASH) is None
    assert witness.store.evidence_counts() == {ORIGIN: 1}
    # Once.
    assert witness.add_checkpoint(fork.request(10, proof=[])).evidence is None
    assert len(witness.store.evidence()) == 1


def test_evidence_is_found_whatever_the_answer(witness: Witness, log: Log) -> None:
    for size in (4, 7, 10):
        cosigned(witness, log.request(0 if size == 4 else {7: 4, 10: 7}[size], size))
    fork = log.branch(2, 10)
    # Stale, and of a size that was cosigned once.
    answer = witness.add_checkpoint(fork.request(0, 7))
    assert isinstance(answer.result, Refused)
    assert answer.result.why is Refusal.STALE
    assert evidence_of(answer.evidence).first == log.note(7)
    # Of a size that was refused before.
    assert witness.add_checkpoint(fork.request(10, 12)).evidence is None
    log.grow(2)
    answer = witness.add_checkpoint(log.request(10))
    assert isinstance(answer.result, Cosigned)
    assert evidence_of(answer.evidence).first == fork.note(12)


def test_what_a_stranger_made_up_is_no_evidence(witness: Witness, log: Log) -> None:
    cosigned(witness, log.request(0))
    forged = Log(seed=9).grow(10, "other")
    assert witness.add_checkpoint(forged.request(10)).evidence is None
    assert witness.store.evidence() == []


def test_memory_is_bounded_and_the_latest_head_is_never_forgotten(
    witness: Witness, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SEEN_HEADS", 4)
    monkeypatch.setattr(stores, "MAX_EVIDENCE", 2)
    cosigned(witness, log.request(0))
    # A log that signs many larger heads pushes its latest out of those that are kept.
    fork = log.branch(4, 20)
    for size in range(15, 24):
        assert refused(witness, fork.request(10, size)).why is Refusal.UNPROVEN
    assert witness.add_checkpoint(fork.request(10, 10, [])).evidence is not None
    # Old heads that anybody can show again push nothing out.
    for size in range(1, 10):
        assert refused(witness, log.request(size, size)).why is Refusal.STALE
    other = log.branch(3, 30)
    assert witness.add_checkpoint(other.request(10, 23)).evidence is not None
    assert witness.add_checkpoint(other.request(10, 22)).evidence is None
    assert len(witness.store.evidence()) == 2


# Clocks


@pytest.mark.parametrize(
    ("last", "now", "at"),
    [(0, 5, 5), (0, 0, 1), (100, 200, 200), (100, 99, 100), (100, 40, 100), (100, 39, None)],
)
def test_times_never_go_back(last: int, now: int, at: int | None) -> None:
    assert cosigning_time(Head(cosigned_at=last), now) == at


def test_a_clock_that_went_back_stops_the_witness(tmp_path: Path) -> None:
    log = Log().grow(5)
    url = f"sqlite:///{tmp_path / 'w.db'}"
    with witness_over(url, log) as witness:
        cosigned(witness, log.request(0, 3))
    with witness_over(url, log, now=NOW - 10, new=False) as witness:
        assert cosigned(witness, log.request(3, 4)).at == NOW
    with witness_over(url, log, now=NOW - 3600, new=False) as witness:
        with pytest.raises(ClockError, match="clock"):
            witness.add_checkpoint(log.request(4))
        assert heads(witness) == {ORIGIN: 4}


# What it is made of


def test_the_database_must_be_that_of_the_key(url: str) -> None:
    log = Log().grow(5)
    with witness_over(url, log) as witness:
        cosigned(witness, log.request(0))
    with witness_over(url, log, new=False) as witness:
        assert heads(witness) == {ORIGIN: 5}
    other = cosigner("witness.example/w2", 101)
    with (
        pytest.raises(ConfigurationError, match="is this its database"),
        witness_over(url, log, signer=other, new=False),
    ):
        pass
    for signer in (other, cosigner()):
        with (
            pytest.raises(ConfigurationError, match="one of its own"),
            witness_over(url, log, signer=signer),
        ):
            pass


def test_nobody_is_their_own_witness(witness: Witness) -> None:
    own = note_signer(ORIGIN, 100).verifier
    with pytest.raises(ConfigurationError, match="own witness"):
        Witness(cosigner(), {ORIGIN: (own,)}, witness.store)
    with pytest.raises(ConfigurationError, match="no key"):
        Witness(cosigner(), {ORIGIN: ()}, witness.store)
    with pytest.raises(ConfigurationError, match="0x04"):
        Witness(note_signer("w", 100), {}, witness.store)


def test_keys_of_logs_are_keys_of_logs() -> None:
    assert parse_logs({ORIGIN: [Log().verifier.vkey]}) == {ORIGIN: (Log().verifier,)}
    with pytest.raises(InvalidInputError, match="key of a witness"):
        parse_logs({ORIGIN: [cosigner().verifier.vkey]})


def test_rules_hold_for_sizes_that_no_tree_here_has() -> None:
    most = (1 << 63) - 1
    head = Head(most, HASH, NOW)
    same = Checkpoint(ORIGIN, most, HASH)
    assert judge(head, old_size=most, proof=[], checkpoint=same) is None
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert judge(Head(), old_size=0, proof=[], checkpoint=empty) is None


def test_a_signer_that_fails_leaves_the_head_on_disk(tmp_path: Path) -> None:
    """Persisted before it is signed: what is lost is an answer, never the memory of one."""
    log = Log().grow(5)

    class Broken(NoteSigner):
        def sign(self, text: str, at: int | None = None) -> object:  # type: ignore[override]
            del text, at
            raise OSError

    inner = cosigner()
    broken = Broken(inner._signer, inner.key.algorithm)
    url = f"sqlite:///{tmp_path / 'w.db'}"
    with witness_over(url, log, signer=broken) as witness:
        with pytest.raises(OSError):  # noqa: PT011 - as raised above
            witness.add_checkpoint(log.request(0))
        assert heads(witness) == {ORIGIN: 5}
    with witness_over(url, log, new=False) as witness:
        assert refused(witness, log.branch(2, 3).request(0)).why is Refusal.STALE
        cosigned(witness, log.request(5))
