"""What the gateway asks of the upstream beyond what the client asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final, Self, TypeAlias

import orjson

from coin_protocol.errors import InvalidInputError
from coin_protocol.tokenizer import Tokenizer
from provider_sdk.gateway.markers import MarkerIds
from provider_sdk.gateway.retokenize import cuts_words

Json: TypeAlias = dict[str, object]

_EARLIER: Final = ("previous_response_id", "conversation")


class Endpoint(Enum):
    """The three kinds of reply."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"

    @classmethod
    def of(cls, path: str) -> Self | None:
        """Return the endpoint at a path, None where its replies are not committed to."""
        return next((kind for kind in cls if kind.value == path.rstrip("/")), None)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How replies of one model are read; shared by all of them.

    Attributes:
        tokenizer: The profile's.
        markers: The model's, by that tokenizer.
        hide_reasoning: The client sees none of the reasoning. Summaries are meant to be seen.
    """

    tokenizer: Tokenizer
    markers: MarkerIds
    hide_reasoning: bool = True

    @cached_property
    def cuts_words(self) -> bool:
        """Whether text can be tokenized again while it comes."""
        return cuts_words(self.tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as it goes to the upstream.

    Attributes:
        body: Its bytes; the client's own where nothing had to be added.
        endpoint: Where it goes.
        model: As the client named it; empty where it named none.
        stream: Whether the reply is a stream.
        choices: Choices that the reply will have: `n` for each prompt.
        client_token_ids: The client asked for token ids itself.
        client_usage: The client gets the usage block of a stream.
        client_messages: The client asked for a response's raw messages itself.
        goes_on: From an earlier response, which the upstream keeps, reasoning and all.
        echo: The reply begins with the prompt's text.
        prompts: The texts of a completion's prompts; empty where they are ids.
        held: Characters of the longest stop string: an upstream may hold so many back.
    """

    body: bytes
    endpoint: Endpoint
    model: str
    stream: bool
    choices: int
    client_token_ids: bool
    client_usage: bool
    client_messages: bool
    echo: bool
    prompts: tuple[str, ...] = ()
    held: int = 0
    goes_on: bool = False

    def prompt_of(self, index: int) -> str:
        """Return the text of the prompt that a choice goes on from; empty where it is unknown."""
        each = self.choices // len(self.prompts) if self.prompts else 0
        return self.prompts[index // each] if each and index < self.choices else ""


def prepare(
    endpoint: Endpoint, raw: bytes, *, ask_token_ids: bool = True, keep_usage: bool = False
) -> Prepared:
    """Ask for token ids, and for usage in a stream, unless the client has.

    Args:
        endpoint: Where the request goes.
        raw: As the client sent it.
        ask_token_ids: False for upstreams that refuse `return_token_ids`, as SGLang does for
            streamed chats.
        keep_usage: Pass the usage chunk on though the client did not ask for it.

    Raises:
        InvalidInputError: It is no JSON object. The upstream will say so itself.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        msg = f"a request of {len(raw)} bytes is not JSON; wanted an object"
        raise InvalidInputError(msg) from error
    if not isinstance(body, dict):
        msg = f"a request is a JSON {type(body).__name__}; wanted an object"
        raise InvalidInputError(msg)
    stream = body.get("stream") is True
    options = body.get("stream_options")
    client_ids = body.get("return_token_ids") is True
    client_usage = isinstance(options, dict) and options.get("include_usage") is True
    client_messages = body.get("enable_response_messages") is True
    changed = False
    if ask_token_ids and not client_ids:
        body["return_token_ids"] = changed = True
    if endpoint is Endpoint.RESPONSES:
        if ask_token_ids and not stream and not client_messages:
            # vLLM's way to tell a response's ids: only when it is whole.
            body["enable_response_messages"] = changed = True
    elif stream and not client_usage and (options is None or isinstance(options, dict)):
        body["stream_options"] = {**(options or {}), "include_usage": True}
        changed = True
    model = body.get("model")
    return Prepared(
        body=orjson.dumps(body) if changed else raw,
        endpoint=endpoint,
        model=model if isinstance(model, str) else "",
        stream=stream,
        choices=_choices(endpoint, body),
        client_token_ids=client_ids,
        client_usage=client_usage or keep_usage or endpoint is Endpoint.RESPONSES,
        client_messages=client_messages,
        echo=body.get("echo") is True,
        prompts=_prompts(endpoint, body),
        goes_on=any(body.get(name) is not None for name in _EARLIER),
        held=max(map(len, _texts(body.get("stop"))), default=0),
    )


def _texts(value: object) -> tuple[str, ...]:
    """Return a string, or a list of nothing but strings, as a tuple."""
    found = value if isinstance(value, list) else [value]
    texts = tuple(each for each in found if isinstance(each, str))
    return texts if len(texts) == len(found) else ()


def _prompts(endpoint: Endpoint, body: Json) -> tuple[str, ...]:
    return _texts(body.get("prompt")) if endpoint is Endpoint.COMPLETIONS else ()


def _choices(endpoint: Endpoint, body: Json) -> int:
    number, prompt = body.get("n"), body.get("prompt")
    if endpoint is Endpoint.RESPONSES:
        return 1
    wanted = number if isinstance(number, int) and number > 0 else 1
    if endpoint is Endpoint.COMPLETIONS and isinstance(prompt, list) and prompt:
        # A list of ids is one prompt, a list of strings or of lists is several.
        wanted *= 1 if isinstance(prompt[0], int) else len(prompt)
    return wanted
