"""What vendors report as usage: each one's convention, read, checked, and compared.

    >>> from coin_protocol.vendors import compare, read_usage
    >>> reported = read_usage("openai", reply["usage"])
    >>> reported.generated, reported.answer_tokens
    (1944, 584)
    >>> compare(reported, committed_reasoning=1360, answer_tokens=584)
    []

Pure: no I/O, nothing but protobuf beyond the standard library. docs/usage.md has the table.
"""

from __future__ import annotations

from coin_protocol.vendors.codes import DifferenceCode, UsageCode, UsageError
from coin_protocol.vendors.comparing import MARKER_TOKENS, Difference, compare
from coin_protocol.vendors.conventions import CONVENTIONS, CachedCounting, Convention, Names
from coin_protocol.vendors.counts import MAX_TOKENS
from coin_protocol.vendors.detecting import detect_vendor, readings
from coin_protocol.vendors.reading import read_usage
from coin_protocol.vendors.reported import Reported

__all__ = [
    "CONVENTIONS",
    "MARKER_TOKENS",
    "MAX_TOKENS",
    "CachedCounting",
    "Convention",
    "Difference",
    "DifferenceCode",
    "Names",
    "Reported",
    "UsageCode",
    "UsageError",
    "compare",
    "detect_vendor",
    "read_usage",
    "readings",
]
