"""One choice of a reply: its ids and text so far, and what the client may see of them."""

from __future__ import annotations

from typing import Final

from coin_protocol.answer import ToolCall, answer_bytes
from provider_sdk.gateway.alignment import Alignment
from provider_sdk.gateway.dialects.hide import without_later
from provider_sdk.gateway.dialects.remade import RemadeIds
from provider_sdk.gateway.dialects.request import Rules
from provider_sdk.gateway.splitter import Flag, Run, Side, Splitter

_CUT_OFF: Final = (None, "length", "content_filter", "error", "abort")
_NO_IDS: Final[list[int]] = []


class Choice:
    """What came of one choice.

    Attributes:
        index: Its number in the reply.
        reasoning_tokens: Ids of reasoning given out.
        answer_tokens: All other ids: answer, marks, stop token.
        finish_reason: The upstream's; None while it goes on, or where it broke off.
        stopped: A stop string of the client ended it.
        retokenized: The ids were made from text.
    """

    __slots__ = (
        "_align",
        "_bad",
        "_calls",
        "_check",
        "_content",
        "_echo",
        "_fields",
        "_flags",
        "_late",
        "_remade",
        "_rules",
        "_sampled",
        "_splitter",
        "_summary",
        "_vocabulary",
        "answer_tokens",
        "finish_reason",
        "finished",
        "index",
        "reasoning_tokens",
        "retokenized",
        "runs",
        "stopped",
    )

    def __init__(
        self,
        rules: Rules,
        index: int,
        *,
        opened: bool | None,
        check: bool,
        echo: str = "",
        held: int = 0,
    ) -> None:
        """Start before the first token.

        Args:
            rules: The model's.
            index: Its number in the reply.
            opened: Whether the prompt opened reasoning, None where that is unknown.
            check: Whether the text is the ids' own, so that the two can be compared.
            echo: The text that comes before it: the prompt's, where the client asked for that.
            held: Characters of text that the upstream may hold back.
        """
        self._rules = rules
        self._vocabulary = rules.tokenizer.vocabulary_size
        self._bad = False
        self.index = index
        self._splitter = Splitter(rules.markers, opened=opened)
        self._align = Alignment(rules.markers, held=held)
        self._echo = echo
        if not check or rules.markers.markers.lone_close:
            # Text of channels has their names in it or not, as the upstream likes.
            self._align.give_up()
        self._remade: RemadeIds | None = None
        self._fields = False
        self._sampled = False
        self._late = ""
        self._content = bytearray()
        self._summary: bytearray | None = None
        self._calls: dict[int, tuple[list[str], list[str]]] = {}
        self._flags: set[Flag] = set()
        self.reasoning_tokens = 0
        self.answer_tokens = 0
        self.finish_reason: str | None = None
        self.finished = False
        self.stopped = False
        self.retokenized = False
        self.runs: list[Run] = []

    @property
    def content(self) -> str:
        """The answer's text as the client was given it."""
        return self._content.decode()

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of tools, put together, in the reply's order."""
        return [
            ToolCall("".join(name), "".join(arguments))
            for _, (name, arguments) in sorted(self._calls.items())
        ]

    @property
    def summary(self) -> bytes | None:
        """The summary of the reasoning that the client was given, in UTF-8."""
        return None if self._summary is None else bytes(self._summary)

    @property
    def flags(self) -> frozenset[Flag]:
        """What is wrong."""
        return frozenset(self._flags | self._splitter.flags)

    @property
    def cut_off(self) -> bool:
        """Whether the reply ended otherwise than by the model's own stop."""
        return self.stopped or self.finish_reason in _CUT_OFF

    def notes(self) -> list[str]:
        """Return sentences about what is unusual, though no reason to go without a commitment."""
        if self.cut_off and Flag.UNCLOSED in self.flags:
            return ["the reply ended before its reasoning did"]
        return []

    @property
    def sampled(self) -> bool:
        """Whether the upstream gave token ids."""
        return self._sampled

    @property
    def pending(self) -> int:
        """Characters of reasoning whose ids `finish` will make."""
        return self._remade.pending if self._remade else 0

    def answer(self) -> bytes:
        """Return what `answer_sha256` is the digest of."""
        return answer_bytes(self.content, self.tool_calls)

    def take(self, ids: list[int], content: str, reasoning: str) -> tuple[list[int], str]:
        """Take what one event brought.

        Args:
            ids: Sampled; empty where the upstream gave none.
            content: Text of the answer, with reasoning in it where the upstream parses none.
            reasoning: Text that the upstream itself set apart as reasoning.

        Returns:
            Ids to commit to, and the content that the client is given.
        """
        if self._echo and content:
            return self._take_echo(ids, content, reasoning)
        if ids and not self._bad:
            if not self._sampled:
                self._sampled = True
                if self.retokenized:
                    self._flags.add(Flag.SOME_IDS)
            for token_id in ids:
                if type(token_id) is not int or not 0 <= token_id < self._vocabulary:
                    self.bad_ids()
                    return self._take_text(content, reasoning)
            return self._take_ids(ids, content, reasoning)
        if not content and not reasoning:
            self.runs = []
            return _NO_IDS, ""
        if self._sampled and not self._bad:
            return self._take_late(content, reasoning)
        return self._take_text(content, reasoning)

    def call(self, position: int, name: str, arguments: str) -> None:
        """Take a part of the call of a tool."""
        names, parts = self._calls.setdefault(position, ([], []))
        if name:
            names.append(name)
        if arguments:
            parts.append(arguments)
        if not self._fields:
            # The upstream's parser took it out of the text.
            self._align.give_up()

    def summarise(self, text: str) -> None:
        """Take a part of the summary."""
        if self._summary is None:
            self._summary = bytearray()
        self._summary += text.encode()

    def release(self) -> tuple[list[int], str]:
        """Return ids and content that were held back, as no more will come; give both out."""
        released, visible = self._last()
        self._content += visible.encode()
        return released, visible

    def _last(self) -> tuple[list[int], str]:
        released: list[int] = []
        self.runs = self._splitter.finish() if self._sampled else []
        for run in self.runs:
            released += self._count(run)
        visible, late, self._late = "", self._late, ""
        if self._remade is not None:
            parts = self._remade.texts.finish()
            released += self._make(self._remade, parts)
            visible = _visible(parts)
        elif late:
            self._align.expect(self.runs)
            visible = _visible(self._align.text(late, self._splitter.side))
        visible += _visible(self._align.rest())
        # Where nothing is hidden, nothing was held back from the client either.
        return released, visible if self._rules.hide_reasoning else ""

    def finish(self) -> list[int]:
        """Return the last ids, once, when the reply is over.

        Text still held back then is lost: the upstream never said that the choice was over.
        """
        released, _ = self._last()
        if self._sampled:
            self._align.finish()
            if self._align.mismatch:
                self._flags.add(Flag.TEXT_MISMATCH)
        if self._remade is not None:
            more, answered = self._remade.finish(self.tool_calls)
            self.reasoning_tokens += len(more)
            self.answer_tokens += answered
            released += more
        return released

    def bad_ids(self) -> None:
        """Take note that ids came which are none; from here on the text alone is split."""
        self._bad = True
        self._flags.add(Flag.BAD_IDS)

    def _take_ids(self, ids: list[int], content: str, reasoning: str) -> tuple[list[int], str]:
        splitter = self._splitter
        if reasoning and not self._fields:
            self._fields = True
            if self._align.lost and self._rules.markers.markers.lone_close:
                self._align = Alignment(self._rules.markers)
            self._align.forget(keep=Side.REASONING)
        begun = bool(splitter.sections)
        over = splitter.sections > 1 or (begun and splitter.side is not Side.REASONING)
        self.runs = runs = self._runs(ids, content, reasoning)
        if len(runs) == 1 and runs[0].text is None:
            side = runs[0].side
            if side is Side.ANSWER:
                self.answer_tokens += len(runs[0].ids)
                released = _NO_IDS
            else:
                self.reasoning_tokens += len(runs[0].ids)
                released = runs[0].ids
        else:
            side, released = splitter.side, []
            for run in runs:
                released += self._count(run)
        if self._fields:
            self._compare(runs, reasoning)
            visible = content
            if content and splitter.sections > 1:
                spell = self._align.spell
                visible = without_later(content, reasoning, runs, spell, over=over, begun=begun)
        else:
            visible = self._deal(runs, content, side)
        if not self._rules.hide_reasoning:
            visible = content
        self._content += visible.encode()
        return released, visible

    def _runs(self, ids: list[int], content: str, reasoning: str) -> list[Run]:
        splitter = self._splitter
        if self._fields and not splitter.marked:
            if not splitter.holding and self._rules.markers.triggers.isdisjoint(ids):
                return self._told(ids, content, reasoning)
            if reasoning and splitter.side is not Side.REASONING and self._closes(ids):
                # The prompt opened it, and said so nowhere.
                splitter.told(Side.REASONING)
        return splitter.feed(ids)

    def _told(self, ids: list[int], content: str, reasoning: str) -> list[Run]:
        """Split ids without marks by the fields that they came with."""
        splitter = self._splitter
        if reasoning:
            splitter.told(Side.REASONING)
        elif content or self._calls:
            splitter.told(Side.ANSWER)
        if not (reasoning and content):
            return splitter.feed(ids)
        # One chunk across the border: as many ids as spell the reasoning's text.
        wanted, count = len(reasoning.encode()), 0
        while wanted > 0 and count < len(ids):
            wanted -= len(self._rules.tokenizer.token_bytes(ids[count]))
            count += 1
        runs = splitter.feed(ids[:count])
        splitter.told(Side.ANSWER)
        return [*runs, *splitter.feed(ids[count:])] if count < len(ids) else runs

    def _closes(self, ids: list[int]) -> bool:
        """Whether ids close reasoning that they did not open."""
        probe = Splitter(self._rules.markers, opened=False)
        probe.feed(ids)
        return Flag.STRAY_CLOSE in probe.flags

    def _count(self, run: Run) -> list[int]:
        if run.side is Side.REASONING:
            self.reasoning_tokens += len(run.ids)
            return run.ids
        self.answer_tokens += len(run.ids)
        return []

    def _compare(self, runs: list[Run], reasoning: str) -> None:
        """Check reasoning that the upstream set apart; what it makes of the answer is its own."""
        align = self._align
        if align.lost or align.mismatch:
            return
        if len(runs) == 1 and runs[0].text is None:
            ids = runs[0].ids
            if runs[0].side is not Side.REASONING:
                if reasoning:
                    align.text(reasoning, Side.REASONING)
                return
            if align.level and align.spell(ids) == reasoning.encode():
                return
        align.expect([run for run in runs if run.side is Side.REASONING])
        if reasoning:
            align.text(reasoning, Side.REASONING)

    def _deal(self, runs: list[Run], content: str, side: Side) -> str:
        """Return the part of raw text that is answer."""
        align = self._align
        one = len(runs) == 1 and runs[0].text is None
        if one and align.level and not self._late and align.spell(runs[0].ids) == content.encode():
            return content if side is Side.ANSWER else ""
        align.expect(runs)
        if self._splitter.holding:
            if content:
                self._late += content
                align.voice()
            return ""
        text, self._late = self._late + content, ""
        if not text:
            return ""
        reasoned = any(run.side is Side.REASONING for run in runs)
        return _visible(align.text(text, side, reasoned=reasoned))

    def _take_late(self, content: str, reasoning: str) -> tuple[list[int], str]:
        """Take text that came without ids though others came with them: held back before."""
        self.runs = []
        if reasoning and not self._fields:
            self._fields = True
            self._align.forget(keep=Side.REASONING)
        if self._fields:
            if reasoning:
                self._align.text(reasoning, Side.REASONING)
            visible = content
        else:
            visible = self._deal([], content, self._splitter.side)
        if not self._rules.hide_reasoning:
            visible = content
        self._content += visible.encode()
        return _NO_IDS, visible

    def _take_echo(self, ids: list[int], content: str, reasoning: str) -> tuple[list[int], str]:
        """Take the first text, which begins with the prompt's."""
        echo, self._echo = self._echo, ""
        if not content.startswith(echo):
            self._align.give_up()
            echo = ""
        self._content += echo.encode()
        released, visible = self.take(ids, content[len(echo) :], reasoning)
        return released, echo + visible

    def _take_text(self, content: str, reasoning: str) -> tuple[list[int], str]:
        remade = self._remade
        if remade is None:
            self.retokenized = True
            self._remade = remade = RemadeIds(self._rules, self._splitter)
        parts: list[tuple[Side, str]] = []
        if reasoning:
            self._fields = True
            self._splitter.told(Side.REASONING)
            parts.append((Side.REASONING, reasoning))
        if self._fields:
            if content:
                self._splitter.told(Side.ANSWER)
                parts.append((Side.ANSWER, content))
            visible = content
        else:
            parts = remade.texts.feed(content)
            visible = _visible(parts)
        if not self._rules.hide_reasoning:
            visible = content
        self._content += visible.encode()
        self.runs = []
        return self._make(remade, parts), visible

    def _make(self, remade: RemadeIds, parts: list[tuple[Side, str]]) -> list[int]:
        released, answered = remade.feed(parts)
        self.reasoning_tokens += len(released)
        self.answer_tokens += answered
        return released


def _visible(parts: list[tuple[Side, str]]) -> str:
    return "".join(text for side, text in parts if side is Side.ANSWER)
