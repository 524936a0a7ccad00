"""A month's bill: read in whatever form it comes, checked alone and beside receipts, offline.

    >>> from pathlib import Path
    >>> from verifier_sdk.bill import BillCheck, PriceList
    >>> prices = PriceList.from_file(Path("prices.toml"))
    >>> for checked in BillCheck(Path("generations.csv"), prices=prices):
    ...     print(checked.number, checked.verdict, [each.sentence for each in checked.findings])

Needs nothing beyond the core: no server, no model. docs/bill.md has forms, findings and limits.
"""

from __future__ import annotations

from verifier_sdk.bill.book import ReceiptBook
from verifier_sdk.bill.check import BillCheck, Checked
from verifier_sdk.bill.codes import VERDICT_OF, Code, Finding, Verdict, Weight
from verifier_sdk.bill.formats import AUTO, FORMATS, SHAPES, Shape
from verifier_sdk.bill.line import Kind, Line, Period, Terms
from verifier_sdk.bill.matching import How
from verifier_sdk.bill.prices import Price, PriceList
from verifier_sdk.bill.receipts import Examiner, Facts, State
from verifier_sdk.bill.requests import Requests
from verifier_sdk.bill.totals import Amount, Totals

__all__ = [
    "AUTO",
    "FORMATS",
    "SHAPES",
    "VERDICT_OF",
    "Amount",
    "BillCheck",
    "Checked",
    "Code",
    "Examiner",
    "Facts",
    "Finding",
    "How",
    "Kind",
    "Line",
    "Period",
    "Price",
    "PriceList",
    "ReceiptBook",
    "Requests",
    "Shape",
    "State",
    "Terms",
    "Totals",
    "Verdict",
    "Weight",
]
