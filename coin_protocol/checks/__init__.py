"""The deterministic checks, as one table in the order they run (protocol, section 7).

`CHECKS` is the whole list. `run_checks` runs those that the evidence at hand allows and stops
at the first that fails: later checks build on earlier ones. A failed check is proof that
something signed is false (`FAULT_PROVIDER`), or that client and provider disagree where
nothing signed tells who is wrong (`FAULT_UNATTRIBUTED`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coin_protocol.checks import kept, opened, whole
from coin_protocol.checks.case import Case
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.checks.trust import Trust, rooted_keys
from coin_protocol.errors import VerificationError
from coin_protocol.receipt import check_rounds
from coin_protocol.v1 import receipt_pb2

__all__ = [
    "CHECKS",
    "Case",
    "Check",
    "CheckFailure",
    "Report",
    "Trust",
    "rooted_keys",
    "run_checks",
]

_PROVIDER: Final = receipt_pb2.FAULT_PROVIDER
_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED
_FAIL: Final = receipt_pb2.OUTCOME_FAIL
_INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE


def _always(case: Case) -> bool:  # noqa: ARG001 - the table wants one signature
    return True


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table.

    Attributes:
        code: Stable name, in verdicts and exit reports.
        verify: Returns None or raises `VerificationError`.
        applies: Whether the evidence at hand has anything for it to check.
        advice: What to do when it fails, unless the failure says otherwise.
        fault: Whose statement a failure contradicts, unless the failure says otherwise.
        outcome: What a failure means.
    """

    code: str
    verify: Callable[[Case], None]
    advice: str
    applies: Callable[[Case], bool] = _always
    fault: receipt_pb2.Fault.ValueType = _PROVIDER
    outcome: receipt_pb2.Outcome.ValueType = _FAIL

    @property
    def claim(self) -> str:
        """What holds when the check passes, in one sentence."""
        return (self.verify.__doc__ or "").strip()


# fmt: off
CHECKS: Final[tuple[Check, ...]] = (
    Check("SIGNATURE", kept.signature,
          "Pin the right root key; if it is right, ask the provider for a receipt it signed.",
          fault=_UNATTRIBUTED),
    Check("STATEMENT", kept.statement,
          "Show the bundle to the provider: it signed bytes that break the protocol."),
    Check("KEY_WINDOW", kept.key_window,
          "Ask the provider for a receipt under a key that was valid at the time.",
          fault=_UNATTRIBUTED),
    Check("PROFILE", kept.profile_known,
          "Audit with the profile that the commitment names.",
          fault=receipt_pb2.FAULT_UNSPECIFIED, outcome=_INCONCLUSIVE),
    Check("CLIENT_NONCE", kept.client_nonce,
          "Compare the nonce with your request log: this commitment answers another request.",
          fault=_UNATTRIBUTED),
    Check("REQUEST_DIGEST", kept.request_digest,
          "Compare the exact bytes of the request that you sent.",
          fault=_UNATTRIBUTED),
    Check("ANSWER_DIGEST", kept.answer_digest,
          "Compare the exact bytes of the answer that you received.",
          applies=kept.answer_known, fault=_UNATTRIBUTED),
    Check("BILL", kept.bill,
          "Dispute the bill: it does not count what was committed."),
    Check("MANIFEST_ROOT", kept.manifest_root,
          "Dispute the bill: the provider cannot show the tree that it signed.",
          applies=kept.has_manifest),
    Check("SIZES", kept.sizes,
          "Dispute the bill: the signed sizes are not those of the signed tree.",
          applies=kept.has_manifest),
    Check("CHECKPOINT_PREFIX", kept.checkpoint_prefix,
          "Dispute the bill: what was committed during the reply is not what was billed.",
          applies=kept.saw_checkpoints),
    Check("FINGERPRINTS", kept.fingerprints_binding,
          "Dispute the bill: the fingerprints belong to another commitment.",
          applies=kept.has_fingerprints),
    Check("FLIP", opened.flip,
          "Dispute the bill: the provider picked its own randomness.",
          applies=opened.has_flips),
    Check("DRAW", opened.indices_as_drawn,
          "Dispute the bill: the provider opened what it chose, not what was drawn.",
          applies=opened.has_openings),
    Check("OPENING_PRESENT", opened.opening_present,
          "Ask the provider to answer before a third party; no answer means no proof.",
          applies=opened.has_rounds),
    Check("INCLUSION_PROOF", opened.inclusion_proofs,
          "Dispute the bill: what was opened is not what was committed.",
          applies=opened.has_openings),
    Check("BLOCK_COUNT", opened.block_counts,
          "Dispute the bill: a block counts more tokens than it has leaves.",
          applies=opened.has_openings),
    Check("LEAF_REPEATED", opened.leaves_distinct,
          "Dispute the bill: leaves were repeated to raise the count.",
          applies=kept.has_manifest),
    Check("TOKEN_ROW", opened.token_rows,
          "Dispute the bill: token embeddings were made up.",
          applies=opened.has_openings),
    Check("WINDOW_EMBEDDING", opened.window_embeddings,
          "Dispute the bill: block embeddings were made up.",
          applies=opened.has_openings),
    Check("WHOLE_LEAVES", whole.whole_leaves,
          "Dispute the bill: the tokens shown are not those committed.",
          applies=whole.has_whole),
    Check("WHOLE_TEXT", whole.whole_text,
          "Dispute the bill: the text shown is not that of its tokens.",
          applies=whole.can_embed),
    Check("WHOLE_EMBEDDING", whole.whole_embedding,
          "Dispute the bill: the committed embeddings are not those of the text.",
          applies=whole.can_embed),
    Check("ARRIVAL_TIME", kept.arrival_time,
          "Compare clocks; if they are right, the tokens were not decoded for this reply.",
          applies=kept.saw_checkpoints, fault=_UNATTRIBUTED),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found.

    Attributes:
        results: One for each row of the table, in its order.
        failed: The check that failed, if one did.
        detail: What it found and wanted.
        outcome: What that means.
        fault: Whose statement that contradicts.
        advice: What to do; empty where no check failed.
    """

    results: tuple[receipt_pb2.CheckResult, ...]
    failed: Check | None = None
    detail: str = ""
    outcome: receipt_pb2.Outcome.ValueType = receipt_pb2.OUTCOME_UNSPECIFIED
    fault: receipt_pb2.Fault.ValueType = receipt_pb2.FAULT_UNSPECIFIED
    advice: str = ""

    def passed(self, code: str) -> bool:
        """Whether the check with this code ran and passed."""
        return any(
            result.code == code and result.status == receipt_pb2.CHECK_STATUS_PASSED
            for result in self.results
        )


def run_checks(case: Case) -> Report:
    """Run the checks in order, up to the first that fails.

    Raises:
        InvalidInputError: The verifier's own part of the evidence is malformed, so that
            nothing can be said of the provider.
    """
    check_rounds(case.rounds)
    check_rounds(case.whole_rounds)
    results: list[receipt_pb2.CheckResult] = []
    failure: tuple[Check, CheckFailure] | None = None
    for check in CHECKS:
        result = receipt_pb2.CheckResult(code=check.code, status=receipt_pb2.CHECK_STATUS_SKIPPED)
        if failure is None and check.applies(case):
            try:
                check.verify(case)
                result.status = receipt_pb2.CHECK_STATUS_PASSED
            except VerificationError as error:
                own = error if isinstance(error, CheckFailure) else CheckFailure(str(error))
                failure = check, own
                result.status = receipt_pb2.CHECK_STATUS_FAILED
                result.detail = str(error)
        results.append(result)
    if failure is None:
        return Report(tuple(results))
    failed, own = failure
    return Report(
        tuple(results),
        failed,
        str(own),
        failed.outcome if own.outcome is None else own.outcome,
        failed.fault if own.fault is None else own.fault,
        failed.advice if own.advice is None else own.advice,
    )
