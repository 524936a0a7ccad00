"""Why a page is not shown, as visitors are told it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final


class Problem(Exception):  # noqa: N818 - it becomes a page, not a traceback
    """A page cannot be shown. The text is for the visitor: it tells nothing private.

    Attributes:
        status: Of HTTP.
        text: What was found and what to do, in sentences.
        headers: To be sent with it.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Say what happened."""
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})

    @property
    def title(self) -> str:
        """What the status is called."""
        return HTTPStatus(self.status).phrase


NOT_FOUND: Final = "There is nothing at this address. It may have been mistyped."
NO_SUCH_AUDIT: Final = (
    "This node has no audit of that id. An id is 64 hexadecimal digits; part of one can be looked "
    "for in the list of audits."
)
NO_ACCOUNTS: Final = (
    "Nobody can log in, so nothing is shown: this node has no file of accounts that it can use. "
    "Whoever runs it adds an account with “coin verifier account NAME --file FILE”, lets nobody "
    "but the node's user read the file (mode 600), and names it in the setting web.accounts. The "
    "node's log says what is wrong."
)
STORE_DOWN: Final = "The node's database does not answer. Try again in a moment."
FOREIGN_HOST: Final = (
    "This node does not serve pages under that host name. Whoever runs it names the address in "
    "the setting web.origins."
)
FOREIGN_FORM: Final = (
    "The form was not sent by a page of this node, or its page is too old. Load the page again "
    "and send it once more."
)
INTERNAL: Final = (
    "This page could not be made: a bug of the node, not of the audit. Its log has the details."
)
GET_ONLY: Final = "This address is only read: GET and HEAD are answered."


def told(status: int) -> str:
    """Return what is said of a status that the router gives."""
    return {404: NOT_FOUND, 405: GET_ONLY}.get(status, HTTPStatus(status).description)
