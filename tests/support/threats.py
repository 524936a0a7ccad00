"""Which tests mount which row of the protocol's threat list, and which take its defence away.

Rows of a provider are played by the liars of the catalogue, who name them. Those of other parties
are linked by hand, in `OTHERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from coin_protocol.checks import CHECKS
from coin_protocol.testing.adversaries import ALL_ADVERSARIES, Adversary, Found
from coin_protocol.testing.mutations import MUTATIONS, Party
from tests.support.limit_cases import CAPS

ROOT: Final = Path(__file__).parents[2]
CODES: Final = tuple(check.code for check in CHECKS)

_MUTATIONS: Final = "tests/unit/kit/test_mutations.py"
VECTORS: Final = "tests/unit/test_evidence_vectors.py::test_a_vector_comes_to_what_it_states"
BUNDLES: Final = "tests/unit/kit/test_vectors_files.py::test_a_vector_comes_to_what_it_states"
TRIPS: Final = f"{_MUTATIONS}::test_a_mutation_trips_its_check_and_no_earlier_one"
LIFTED: Final = f"{_MUTATIONS}::test_without_its_check_a_mutation_passes_or_is_caught_later"

_LIMITS: Final = "tests/unit/test_limits.py"
PAST: Final = f"{_LIMITS}::test_what_is_past_a_limit_is_refused_in_a_sentence"
MADE_AS: Final = f"{_LIMITS}::test_what_is_made_has_the_size_that_everybody_else_makes"
CAP: Final = f"{_LIMITS}::test_a_cap_of_the_profile_alone_keeps_the_rest_closed"
RUN: Final = f"{_LIMITS}::test_how_long_a_run_is_says_the_profile_alone"

_ADVERSARIES: Final = "tests/integration/kit/test_adversaries.py"
FOUND: Final = {
    Found.CHECK: f"{_ADVERSARIES}::test_a_lie_fails_its_check",
    Found.GRADED: f"{_ADVERSARIES}::test_what_is_graded_fails_no_check_and_bills_more",
    Found.EVIDENCE: f"{_ADVERSARIES}::test_two_receipts_of_one_session_are_evidence",
    Found.UNTIMED: f"{_ADVERSARIES}::test_what_was_not_seen_to_grow_is_not_timed",
    Found.UNDECIDED: f"{_ADVERSARIES}::test_what_is_taken_at_the_providers_word_is_no_pass",
}
"""The test that plays a liar, by how it is found out."""

_ATTEMPTS: Final = "tests/integration/kit/test_malicious_verifier.py"
_STANDS: Final = f"{_ATTEMPTS}::test_our_challenge_service_stands_every_attempt"
_BROKEN: Final = f"{_ATTEMPTS}::test_a_provider_that_is_broken_is_found_out"
_MERKLE: Final = "tests/property/test_merkle_properties.py"
_EXPOSURE: Final = "tests/property/test_exposure_properties.py"
_PROXY: Final = "tests/integration/kit/test_proxy.py"


SHORT: Final = {
    "trips": TRIPS,
    "without": LIFTED,
    "vectors": VECTORS,
    "bundles": BUNDLES,
    "liars": FOUND[Found.CHECK],
    "graded": FOUND[Found.GRADED],
    "receipts": FOUND[Found.EVIDENCE],
    "untimed": FOUND[Found.UNTIMED],
    "undecided": FOUND[Found.UNDECIDED],
    "attempts": _STANDS,
    "broken": _BROKEN,
    "past": PAST,
    "made": MADE_AS,
    "cap": CAP,
    "run": RUN,
}
"""Names by which the page calls tests that it names often."""


@dataclass(frozen=True, slots=True)
class Threatened:
    """What somebody may try, and the tests of it.

    Attributes:
        mounted: Who tries it.
        tests: Try it, and see that it is stopped.
        without: Take the defence away, and see that it is not.
    """

    mounted: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...]


def _mutated(*parties: Party) -> tuple[str, ...]:
    return tuple(found.name for found in MUTATIONS if found.by in parties)


OTHERS: Final = {
    "shows two heads to two parties, rewrites its past": Threatened(
        ("`ForkedLog`", "the broken logs and witnesses of `tests/machines`"),
        (
            "tests/unit/test_evidence.py::test_two_heads_of_one_size_are_proof",
            "tests/unit/witness/test_client.py::test_a_fork_is_refused_for_good",
            f"{_MERKLE}::test_a_tree_that_rewrote_its_past_has_no_consistency_proof",
        ),
        (
            "tests/machines/test_log_machine.py::test_a_log_that_breaks_a_rule_is_found_out",
            "tests/machines/test_witness_machine.py::test_a_witness_that_breaks_a_rule_is_found_out",
        ),
    ),
    "aims challenges at tokens it wants to read": Threatened(
        ("`MaliciousVerifier`",),
        (_STANDS, "tests/property/test_draw_properties.py::test_no_made_up_flip_verifies"),
        (f"{_BROKEN}[makes flips up]", f"{_BROKEN}[reuses flips]"),
    ),
    "asks too often": Threatened(
        ("`MaliciousVerifier`",),
        (
            _STANDS,
            f"{_EXPOSURE}::test_challenges_that_pass_never_open_more_than_a_cap",
        ),
        (
            f"{_BROKEN}[keeps no ledger]",
            f"{_BROKEN}[keeps a ledger of each verifier]",
            f"{_BROKEN}[does not lock]",
            *(f"{CAP}[{case.cap}]" for case in CAPS),
        ),
    ),
    "draws long runs to read sentences": Threatened(
        ("`MaliciousVerifier`",),
        (_STANDS, RUN),
        (f"{_BROKEN}[opens longer runs than agreed]",),
    ),
    "lies about a verdict": Threatened(
        ("every value of a verdict, altered and signed again",),
        (
            "tests/unit/test_replaying.py::test_every_value_of_a_verdict_that_is_altered_is_named",
            "tests/unit/test_cli_bundles.py::test_a_verdict_that_lies_is_code_1",
        ),
        (),
    ),
    "alters answer or bill and claims fraud": Threatened(
        (f"{len(_mutated(Party.CLIENT))} mutations by the client",),
        (f"{TRIPS}[ANSWER_DIGEST]", f"{TRIPS}[BILL]"),
        (f"{LIFTED}[ANSWER_DIGEST]", f"{LIFTED}[BILL]"),
    ),
    "replays, truncates, reorders": Threatened(
        (f"{len(_mutated(Party.NETWORK))} mutations by the network", "`GrpcProxy`", "`TcpProxy`"),
        (
            f"{TRIPS}[SIGNATURE]",
            f"{TRIPS}[CLIENT_NONCE]",
            f"{TRIPS}[OPENING_PRESENT]",
            f"{_PROXY}::test_a_spoilt_message_is_taken_for_no_lie",
            f"{_PROXY}::test_an_old_opening_is_taken_for_no_lie",
        ),
        (f"{TRIPS}[SIGNATURE]", f"{LIFTED}[CLIENT_NONCE]", f"{LIFTED}[OPENING_PRESENT]"),
    ),
}
"""The rows of the protocol's section 1 that no lying provider plays, by their words there."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the protocol's threat list."""

    who: str
    lie: str
    stopped: str

    @property
    def players(self) -> tuple[Adversary, ...]:
        """The lying providers that play it."""
        return tuple(liar for liar in ALL_ADVERSARIES if liar.threat == self.lie)

    @property
    def codes(self) -> tuple[str, ...]:
        """The checks that stop it."""
        return tuple(code for code in CODES if f"`{code}`" in self.stopped)

    @property
    def threatened(self) -> Threatened:
        """Who tries it, and the tests."""
        if self.lie in OTHERS:
            return OTHERS[self.lie]
        kinds = dict.fromkeys(liar.found for liar in self.players)
        liars = tuple(f"`{liar.name}`" for liar in self.players)
        tests = tuple(FOUND[kind] for kind in kinds)
        return Threatened(liars, tests, tuple(map(without, self.codes)))


@cache
def rows() -> tuple[Row, ...]:
    """Return the rows of the protocol's threat list."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text.partition("\n## 1. ")[2].partition("\n## ")[0]
    found, who = [], ""
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith("| who "):
            first, lie, stopped = (cell.strip() for cell in line.strip("|").split("|"))
            who = first or who
            found.append(Row(who, lie, stopped))
    return tuple(found)


def without(code: str) -> str:
    """Return the test that takes a check away."""
    # Other checks ask for every signature again, so that all is caught; but by another check.
    return f"{TRIPS if code == 'SIGNATURE' else LIFTED}[{code}]"
