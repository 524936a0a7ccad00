"""Does an implementation keep to the protocol? Cases are put to it, and a report says what came.

Four kinds of implementations can be driven: a provider and a verifier node over gRPC, and programs
that verify evidence or make what a provider makes. A case says what is asked and what must come
of it (`case`); `cases/` holds those that ship, `vectors` and `program_cases` make more of the test
vectors and of a whole protocol run in memory.

Imports neither SDK, but for `own_providers`, which is imported where it is needed.
"""

from coin_protocol.conformance.case import Case, CaseSource, FolderCases, Kind, selected
from coin_protocol.conformance.judging import Result, Status, run_cases, run_live_cases

__all__ = [
    "Case",
    "CaseSource",
    "FolderCases",
    "Kind",
    "Result",
    "Status",
    "run_cases",
    "run_live_cases",
    "selected",
]
