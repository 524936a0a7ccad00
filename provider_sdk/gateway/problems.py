"""The gateway's own errors, in the form that clients of OpenAI's API know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

JSON_HEADERS: Final = ((b"content-type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that the gateway answers with.

    Attributes:
        status: HTTP status.
        code: One word for programs, as docs/gateway.md lists them.
        message: A sentence for people.
    """

    status: int
    code: str
    message: str

    @property
    def kind(self) -> str:
        """OpenAI's word for whose mistake it is."""
        return "invalid_request_error" if self.status < 500 else "server_error"

    def document(self, **more: object) -> dict[str, object]:
        """Return the JSON object, with further fields beside `error`."""
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return {"error": error, **more}

    def json(self, **more: object) -> bytes:
        """Return the JSON of `document`."""
        return orjson.dumps(self.document(**more))


NOT_FOUND: Final = Problem(
    404, "not_found", "nothing is passed on here: the gateway's pass_prefixes say what is"
)
UNKNOWN_REPLY: Final = Problem(
    404, "unknown_response", "no reply with this id was made for these credentials"
)
GET_ONLY: Final = Problem(405, "method_not_allowed", "only GET is answered here")
ENCODED: Final = Problem(
    415, "unsupported_encoding", "send the request's body without content-encoding"
)
NO_JSON: Final = Problem(400, "invalid_json", "the request's body is not a JSON object")
STORE_DOWN: Final = Problem(503, "store_unavailable", "the store does not answer; try again")
CLOSING: Final = Problem(503, "shutting_down", "the gateway is shutting down")
CROWDED: Final = Problem(
    503, "too_many_connections", "the gateway has as many connections as it may; try again later"
)
INTERNAL: Final = Problem(500, "internal_error", "the gateway failed; its log says why")
TOO_LARGE: Final = "request_too_large"
BAD_NONCE: Final = "invalid_nonce"
NO_RECEIPT: Final = "receipt_missing"
