"""Limits on bills, receipts, requests and price lists. Checked before memory is spent."""

from __future__ import annotations

from typing import Final

MAX_BILL_BYTES: Final = 16 << 30
"""A bill that is read line by line: tens of millions of requests."""

MAX_DOCUMENT_BYTES: Final = 64 << 20
"""A bill that is one JSON document, which has to be read whole."""

MAX_RECORD_BYTES: Final = 4 << 20
"""One CSV record or line of JSON: spend logs that keep prompts have long ones."""

MAX_COLUMNS: Final = 1000
"""Twenty times the widest export in use."""

MAX_LINES: Final = 20_000_000
"""Lines of a bill. The ids among them are remembered, some 150 bytes each."""

MAX_NAME_CHARACTERS: Final = 512
"""Ids, models, keys, currencies and states in a bill."""

MAX_RECEIPTS: Final = 2_000_000
"""Receipts whose counts are kept in memory, some two kilobytes each."""

MAX_REQUESTS: Final = 5_000_000
"""Requests whose limits are kept in memory."""

MAX_PRICES_BYTES: Final = 4 << 20
"""A price list that somebody writes."""

MAX_PROBLEMS: Final = 100
"""Receipts that are named because they do not count; the rest are only counted."""
