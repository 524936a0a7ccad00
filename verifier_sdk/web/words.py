"""Plain words for what tables and verdicts say in one."""

from __future__ import annotations

from typing import Final

from coin_protocol.v1 import receipt_pb2 as pb
from coin_protocol.v1 import statements_pb2
from verifier_sdk.store import tables
from verifier_sdk.web.formats import NOTHING

OUTCOMES: Final[dict[int, str]] = {
    pb.OUTCOME_PASS: "PASS",
    pb.OUTCOME_FAIL: "FAIL",
    pb.OUTCOME_INCONCLUSIVE: "INCONCLUSIVE",
}
TONES: Final[dict[int, str]] = {
    pb.OUTCOME_PASS: "pass",
    pb.OUTCOME_FAIL: "fail",
    pb.OUTCOME_INCONCLUSIVE: "unsure",
}
"""Class of each outcome in the style sheet."""

MEANINGS: Final[dict[int, str]] = {
    pb.OUTCOME_PASS: "Nothing speaks against the bill, as far as this tier goes.",
    pb.OUTCOME_FAIL: "The bill, or what was signed for it, does not hold.",
    pb.OUTCOME_INCONCLUSIVE: "Neither could be shown. Nobody is accused.",
}
FAULTS: Final[dict[int, str]] = {
    pb.FAULT_PROVIDER: "Something that the provider signed is false, or it did not answer.",
    pb.FAULT_UNATTRIBUTED: "Client and provider disagree, and nothing signed tells who is wrong.",
}
AT_FAULT: Final[dict[int, str]] = {
    pb.FAULT_PROVIDER: "provider",
    pb.FAULT_UNATTRIBUTED: "unattributed",
}
"""The same in a word, for lists."""

TIERS: Final[dict[int, str]] = {
    pb.TIER_ASSERTED: "asserted",
    pb.TIER_COMMITTED: "committed",
    pb.TIER_TIMED: "timed",
    pb.TIER_OPENED: "opened",
    pb.TIER_REEXECUTED: "reexecuted",
    pb.TIER_ATTESTED: "attested",
}
PROVES: Final[dict[int, str]] = {
    pb.TIER_ASSERTED: "Rests on the provider's number, and proves nothing.",
    pb.TIER_COMMITTED: "So many tokens were fixed before the challenge, and those opened agree.",
    pb.TIER_TIMED: "The tokens were committed while the reply came, no faster than models decode.",
    pb.TIER_OPENED: "The blocks opened whole are text with the embeddings committed.",
    pb.TIER_REEXECUTED: "The model named would have produced the tokens opened.",
    pb.TIER_ATTESTED: "Measured code produced the tokens.",
}
STATUSES: Final[dict[int, str]] = {
    pb.CHECK_STATUS_PASSED: "passed",
    pb.CHECK_STATUS_FAILED: "failed",
    pb.CHECK_STATUS_SKIPPED: "skipped",
}
STATES: Final = {
    tables.SUBMITTED: "submitted",
    tables.QUEUED: "waiting",
    tables.RUNNING: "running",
    tables.DECIDED: "decided",
    tables.ERROR: "given up",
    tables.PURGED: "purged",
}
STATE_MEANINGS: Final = {
    tables.SUBMITTED: "Kept, and not drawn for an audit. A client can still ask for one.",
    tables.QUEUED: "Waits for a worker.",
    tables.RUNNING: "A worker is at it.",
    tables.DECIDED: "Has its verdict, which never changes.",
    tables.ERROR: "Given up by this node. Nothing is said of the provider.",
    tables.PURGED: "Past its retention: receipt and bundle are deleted, the figures stay.",
}
DRAWN: Final = {
    "share": "drawn at random",
    "risk": "for what its receipt shows",
    "asked": "a client asked for it",
}
"""Why an audit was made."""

COUNTING: Final[dict[int, str]] = {
    statements_pb2.REASONING_COUNTING_INSIDE_COMPLETION: "reasoning among them",
    statements_pb2.REASONING_COUNTING_BESIDE_COMPLETION: "reasoning beside them",
}
SOURCES: Final[dict[int, str]] = {
    statements_pb2.ID_SOURCE_SAMPLED: "as the engine sampled them",
    statements_pb2.ID_SOURCE_RETOKENIZED: "tokenized again from text",
}
SCORES: Final = {
    "tokens_to_block": "Do the opened tokens belong to this block? Cosine, at most 1.",
    "block_to_answer": "Does the block bear on the answer? Cosine, at most 1.",
    "noncanonical_tokens": "Share of tokens that are not the tokenizer's own choice, 0 to 1.",
    "reference_surprise": "Surprise of a reference model, nats a token.",
}
"""What each score of a block says."""

FAMILIES: Final = {
    "random": "random vocabulary",
    "bag": "a bag of the session's own tokens",
    "scattered": "its own tokens scattered in",
    "retrieved": "text from other questions",
    "repeated": "its own blocks repeated",
    "echoed": "prompt or answer repeated",
    "shuffled": "its sentences in another order",
    "ngram": "n-gram text",
    "replayed": "another session's reasoning",
    "split": "a finer tokenization",
}
"""What each detector of the learned judge looks for."""


def outcome(value: int | None) -> str:
    """Return an outcome's name."""
    return OUTCOMES.get(value or 0, NOTHING)


def tone(value: int | None) -> str:
    """Return an outcome's class in the style sheet."""
    return TONES.get(value or 0, "none")


def at_fault(value: int | None) -> str:
    """Return who a failure speaks against."""
    return AT_FAULT.get(value or 0, NOTHING)


def tier(value: int | None) -> str:
    """Return a tier's name."""
    return TIERS.get(value or 0, NOTHING)


def state(value: str) -> str:
    """Return what a state is called."""
    return STATES.get(value, value)
