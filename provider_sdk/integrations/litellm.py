"""Receipts from a LiteLLM proxy, for chats.

litellm_settings:
  callbacks: provider_sdk.integrations.litellm.proxy_handler_instance

LiteLLM hands over what it has parsed. Ids survive that in plain replies alone: streams are
tokenized again and their receipts say RETOKENIZED.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from fastapi import HTTPException
from litellm.caching.caching import DualCache
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import LLMResponseTypes, ModelResponse, ModelResponseStream

from coin_protocol.errors import InvalidInputError
from coin_protocol.limits import HASH_BYTES
from coin_protocol.v1 import statements_pb2
from provider_sdk.gateway.dialects.hide import REASONING_FIELDS
from provider_sdk.integrations.documents import (
    Committer,
    DocumentReply,
    Json,
    ReceiptMissingError,
    Request,
)
from provider_sdk.integrations.host import Host, host_from_environment, open_for_good

_CHATS: Final = "/chat/completions"
_ITS_OWN: Final = frozenset({"metadata", "litellm_metadata"})
"""What LiteLLM writes into the body that it remembers."""

_CREDENTIALS: Final = frozenset({"authorization", "api-key", "x-api-key"})
"""Headers that a gateway knows a caller by."""

_IDS: Final = ("token_ids", "prompt_token_ids")
_SHOWN: Final = ("content", *REASONING_FIELDS)


class CoinHandler(CustomLogger):  # type: ignore[misc] # its package is not looked into
    """Commits to the chats of a proxy."""

    def __init__(self, host: Host) -> None:
        """Hold the provider, which stays the caller's to close.

        Raises:
            ConfigurationError: The models' markers cannot be used.
        """
        super().__init__()
        self._committer = Committer(host)
        # By LiteLLM's own object of a request, and gone with it.
        self._requests: WeakKeyDictionary[object, Request] = WeakKeyDictionary()

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: Json, call_type: str
    ) -> Json:
        """Refuse a malformed nonce; ask for ids where the settings say that backends have them."""
        del cache, call_type
        try:
            request = self._request(data, user_api_key_dict)
        except InvalidInputError as error:
            raise HTTPException(400, str(error)) from error
        if request is not None and data.get("litellm_logging_obj") is not None:
            # Kept: what comes later remembers a body with additions of LiteLLM's own.
            self._requests[data["litellm_logging_obj"]] = request
        if request is not None and self._committer.asks_for_ids and not data.get("stream"):
            data["extra_body"] = {**data.get("extra_body", {}), "return_token_ids": True}
        return data

    async def async_post_call_success_hook(
        self, data: Json, user_api_key_dict: UserAPIKeyAuth, response: LLMResponseTypes
    ) -> LLMResponseTypes:
        """Commit to a plain reply; its delivery is the field `coin`."""
        if not isinstance(response, ModelResponse):
            return response
        request = self._request(data, user_api_key_dict)
        if request is None:
            return response
        reply = self._committer.reply(request)
        try:
            shown, coin = await reply.plain(_plain_document(response))
        except ReceiptMissingError as error:
            raise HTTPException(502, str(error)) from error
        _show(response, shown.document)
        if not reply.client_token_ids:
            _drop_ids(response)
        if coin is not None:
            # The class takes further fields, and writes them out.
            response.coin = coin
        return response

    async def async_post_call_streaming_iterator_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        response: AsyncIterator[ModelResponseStream],
        request_data: Json,
    ) -> AsyncGenerator[ModelResponseStream | bytes, None]:
        """Commit to a stream. Bytes that are a whole event pass LiteLLM as they are."""
        request = self._request(request_data, user_api_key_dict)
        if request is None:
            async for chunk in response:
                yield chunk
            return
        reply = self._committer.reply(request)
        try:
            async for chunk in response:
                if not isinstance(chunk, ModelResponseStream):
                    yield chunk
                    continue
                for each in _relayed(reply, chunk):
                    yield each
        except (GeneratorExit, asyncio.CancelledError):
            await reply.end(statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED)
            raise
        except Exception:
            for event in await reply.end(statements_pb2.ABORT_REASON_UPSTREAM_ERROR):
                yield event
            raise
        for event in await reply.end(statements_pb2.ABORT_REASON_UPSTREAM_ERROR):
            yield event

    def _request(self, data: Json, user: UserAPIKeyAuth) -> Request | None:
        """Return the client's request; None where nothing is committed to: it is for no chat.

        Raises:
            InvalidInputError: Its nonce is malformed.
        """
        if not self._committer.signs:
            return None
        # None can be no key here, not even one that is not found.
        known = self._requests.get(data.get("litellm_logging_obj") or self)
        sent = data.get("proxy_server_request")
        if known is not None:
            return known
        if not isinstance(sent, dict) or not _path(sent).endswith(_CHATS):
            return None
        body = {name: value for name, value in sent["body"].items() if name not in _ITS_OWN}
        return self._committer.request(_headers(data, sent, user), body)


def _headers(data: Json, sent: Json, user: UserAPIKeyAuth) -> dict[str, str]:
    """Return the client's headers, with the credentials that receipts are handed over to later."""
    # `proxy_server_request` goes without them.
    raw = (data.get("secret_fields") or {}).get("raw_headers")
    headers = {name.lower(): value for name, value in (raw or sent["headers"]).items()}
    known = raw is not None and not getattr(user, "api_key", None)
    if not known and not _CREDENTIALS & headers.keys():
        # The client has some, and they are not told: nobody gets the receipt but with its reply.
        headers["authorization"] = secrets.token_hex(HASH_BYTES)
    return headers


def _path(sent: Json) -> str:
    return str(sent.get("url", "")).partition("?")[0].rstrip("/")


def _plain_document(response: ModelResponse) -> Json:
    """Return a plain reply as its backend wrote it: ids are fields of their choices."""
    document: Json = response.model_dump(mode="json", exclude_none=True)
    for choice in document.get("choices", ()):
        extra = choice.get("provider_specific_fields") or {}
        if "token_ids" in extra:
            choice["token_ids"] = extra["token_ids"]
    return document


def _relayed(reply: DocumentReply, chunk: ModelResponseStream) -> list[ModelResponseStream | bytes]:
    shown = reply.event(chunk.model_dump(mode="json", exclude_none=True))
    if shown.document is None:
        return [*shown.due]
    if not shown.same:
        _show(chunk, shown.document)
    return [*shown.due, chunk]


def _show(response: ModelResponse | ModelResponseStream, document: Json | None) -> None:
    """Leave of a reply's texts what its document shows. The rest is LiteLLM's, and stays."""
    shown = {} if document is None else {each["index"]: each for each in document["choices"]}
    for choice in response.choices:
        left = shown.get(choice.index, {})
        for name in ("message", "delta"):
            part: Any = getattr(choice, name, None)
            if part is not None:
                _show_part(part, left.get(name) or {})
        odds = getattr(choice, "logprobs", None)
        if odds is not None and left.get("logprobs") != _dumped(odds):
            # Those of the reasoning's tokens spell the reasoning.
            choice.logprobs = None


def _dumped(value: Any) -> object:  # noqa: ANN401 - a model of LiteLLM, or its JSON already
    return (
        value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value
    )


def _show_part(part: Any, shown: Json) -> None:  # noqa: ANN401 - a message or a delta of LiteLLM
    for name in _SHOWN:
        if getattr(part, name, None) is None or getattr(part, name) == shown.get(name):
            continue
        if name in shown or name == "content":
            setattr(part, name, shown.get(name))
        else:
            delattr(part, name)
    extra = getattr(part, "provider_specific_fields", None)
    if extra:
        part.provider_specific_fields = shown.get("provider_specific_fields") or {}


def _drop_ids(response: ModelResponse) -> None:
    for choice in response.choices:
        extra = getattr(choice, "provider_specific_fields", None) or {}
        for name in _IDS:
            extra.pop(name, None)
    if getattr(response, "prompt_token_ids", None) is not None:
        del response.prompt_token_ids


def __getattr__(name: str) -> CoinHandler:
    """Open the provider when LiteLLM asks for the handler, and not when this is imported."""
    if name != "proxy_handler_instance":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    handler = CoinHandler(open_for_good(host_from_environment()))
    globals()[name] = handler
    return handler
