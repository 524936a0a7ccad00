"""The event hooks by which a client of httpx is listened to.

Hooks see what passes through any transport, proxy or mount that the client has; a transport of our
own would take the place of those that it makes from its environment.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Final, Protocol

from coin_protocol.delivery import NONCE_HEADER, read_nonce_header
from coin_protocol.limits import MAX_TEXT_BYTES
from verifier_sdk.collecting.exchange import Asked, End, Exchange
from verifier_sdk.collecting.http import Client, Request, Response
from verifier_sdk.collecting.later import Asking, Origin
from verifier_sdk.collecting.problems import ProblemKind
from verifier_sdk.collecting.reply import Endpoint
from verifier_sdk.collecting.tee import async_tee, sync_tee

_CODINGS: Final = frozenset({"gzip", "deflate", "identity"})
"""Compressions that are undone here."""


class House(Protocol):
    """What hooks need of the collector that they belong to."""

    vendor: str
    clock: Callable[[], int] | None

    def starts(self) -> None:
        """Get ready: a request is about to be sent."""

    def report(self, kind: ProblemKind, message: str, response_id: str = "") -> None:
        """Tell of a problem."""

    def ended(self, exchange: Exchange, origin: Origin, asking: Asking) -> None:
        """Take a reply that is over."""

    def asking(self, client: Client, loop: AbstractEventLoop | None) -> Asking:
        """Return how a reply is asked for again."""


class Hooks:
    """The hooks of one client. None of them raises into a request or a reply."""

    def __init__(self, house: House, library: ModuleType, client: Client) -> None:
        """Hold what they need.

        Args:
            house: Takes each exchange at its end.
            library: That the client is of.
            client: Of httpx or httpx2.
        """
        self._house = house
        self._library = library
        self._client = client
        # Where a request carries its exchange, among its extensions. Several may listen.
        self._ours = f"coin-{id(self):x}"

    def requested(self, request: Request) -> None:
        """Take a request that is about to be sent: give it a nonce, and note the time."""
        try:
            self._request(request)
        except Exception as error:  # noqa: BLE001 - a bug of ours, and the request goes out
            self._bug(error)

    async def requested_async(self, request: Request) -> None:
        """Do the same."""
        self.requested(request)

    def responded(self, response: Response) -> None:
        """Take a reply whose body is not read yet, and read along."""
        self._respond(response, sync_tee, None)

    async def responded_async(self, response: Response) -> None:
        """Do the same."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Of another library: what was missed cannot be asked for again.
            loop = None
        self._respond(response, async_tee, loop)

    def _request(self, request: Request) -> None:
        endpoint = Endpoint.of(request.url.path) if request.method == "POST" else None
        if endpoint is None:
            return
        # One that is sent again, to where a redirect says.
        earlier: Exchange | None = request.extensions.get(self._ours)
        try:
            content = request.content
        except RuntimeError:
            if earlier is None:
                why = "no receipt is kept: the request's body is a stream"
                self._house.report(ProblemKind.REQUEST, why)
                return
            content = earlier.asked.request
        if len(content) > MAX_TEXT_BYTES:
            why = f"no receipt is kept: the request has {len(content)} bytes"
            self._house.report(ProblemKind.REQUEST, f"{why}; at most {MAX_TEXT_BYTES} are kept")
            return
        asked = Asked(endpoint, content, vendor=self._house.vendor)
        own = request.headers.get(NONCE_HEADER)
        if own is None:
            request.headers[NONCE_HEADER] = asked.client_nonce.hex()
        else:
            nonce = read_nonce_header(own.encode())
            if nonce is None:
                # The server will say so.
                return
            asked = Asked(endpoint, content, nonce, self._house.vendor)
        _ask_for_known_codings(request)
        self._house.starts()
        request.extensions[self._ours] = Exchange(asked, clock=self._house.clock)

    def _respond(
        self, response: Response, tee: Callable[..., object], loop: AbstractEventLoop | None
    ) -> None:
        try:
            request = response.request
            exchange: Exchange | None = request.extensions.get(self._ours)
            if exchange is None or response.status_code != 200:
                return
            origin = Origin.of(request, exchange.asked.endpoint)
            asking = self._house.asking(self._client, loop)
            ended = partial(self._house.ended, exchange, origin, asking)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.is_closed:
                # Read by whatever made it, and decoded: a cache, say.
                exchange.begin(kind=kind, coding="")
                exchange.feed(response.content, exchange.now())
                exchange.end(End.WHOLE)
                ended()
                return
            exchange.begin(kind=kind, coding=response.headers.get("content-encoding", ""))
            response.stream = tee(self._library, response.stream, exchange, ended)
        except Exception as error:  # noqa: BLE001 - as above
            self._bug(error)

    def _bug(self, error: Exception) -> None:
        why = f"no receipt is kept: a bug of ours ({type(error).__name__})"
        self._house.report(ProblemKind.INTERNAL, why)


def _ask_for_known_codings(request: Request) -> None:
    """Leave those compressions out of what a request accepts that could not be undone here."""
    sent = request.headers.get("accept-encoding", "")
    listed = [each.strip() for each in sent.split(",") if each.strip()]
    known = [each for each in listed if each.partition(";")[0].strip().lower() in _CODINGS]
    if len(known) < len(listed):
        request.headers["accept-encoding"] = ", ".join(known) or "identity"
