"""Test vectors of the bill's arithmetic, by convention (sections 5 and 7, check `BILL`).

What must come of each is stated by hand.
"""

from __future__ import annotations

from typing import Final

from coin_protocol.testing.vector_documents import Documents, accepted, by_file, refused

_UNSAID: Final = "REASONING_COUNTING_UNSPECIFIED"
_INSIDE: Final = "REASONING_COUNTING_INSIDE_COMPLETION"
_BESIDE: Final = "REASONING_COUNTING_BESIDE_COMPLETION"


def usage(
    completion: int, reasoning: int, counting: str, *, prompt: int = 7, cached: int = 0
) -> dict[str, object]:
    """Return a usage block."""
    return {
        "prompt_tokens": prompt,
        "cached_prompt_tokens": cached,
        "completion_tokens": completion,
        "reasoning_tokens": reasoning,
        "reasoning_counting": counting,
    }


def usage_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_right(), *_wrong(), *_told()])


# Committed are 20 reasoning tokens and 5 of the answer, where nothing else is said.


def _right() -> list[dict[str, object]]:
    cases: tuple[tuple[str, str, dict[str, object], int, int], ...] = (
        ("inside", "20 of 25 completion tokens are reasoning.", usage(25, 20, _INSIDE), 20, 5),
        ("beside", "5 completion tokens, and 20 of reasoning.", usage(5, 20, _BESIDE), 20, 5),
        ("no-reasoning-inside", "Nothing was reasoned.", usage(5, 0, _INSIDE), 0, 5),
        ("no-reasoning-beside", "Nothing was reasoned.", usage(5, 0, _BESIDE), 0, 5),
        ("no-answer-inside", "The reply ended in its reasoning.", usage(20, 20, _INSIDE), 20, 0),
        ("no-answer-beside", "The reply ended in its reasoning.", usage(0, 20, _BESIDE), 20, 0),
        ("nothing", "Nothing was generated.", usage(0, 0, _INSIDE, prompt=0), 0, 0),
        ("prompt-all-cached", "A whole prompt may be cached.",
         usage(25, 20, _INSIDE, cached=7), 20, 5),
        ("greatest", "As many tokens as a session has at most.",
         usage(2 << 24, 1 << 24, _INSIDE), 1 << 24, 1 << 24),
    )  # fmt: skip
    return [
        accepted(
            f"bill-{name}",
            about,
            "verify_usage",
            {"usage": block, "reasoning_tokens": reasoning, "answer_tokens": answer},
        )
        for name, about, block, reasoning, answer in cases
    ]


def _wrong() -> list[dict[str, object]]:
    cases: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("one-more", "One reasoning token more.", usage(26, 21, _INSIDE)),
        ("one-less", "One reasoning token less.", usage(24, 19, _INSIDE)),
        ("twice", "Reasoning beside a completion that holds it.", usage(25, 20, _BESIDE)),
        ("left-out", "Reasoning inside a completion that lacks it.", usage(5, 20, _INSIDE)),
        ("unsaid", "Which of both it is must be said.", usage(25, 20, _UNSAID)),
        ("completion-one-more-inside", "One token more, of nothing.", usage(26, 20, _INSIDE)),
        ("completion-one-less-inside", "One token less.", usage(24, 20, _INSIDE)),
        ("completion-one-more-beside", "One token more, of nothing.", usage(6, 20, _BESIDE)),
        ("completion-one-less-beside", "One token less.", usage(4, 20, _BESIDE)),
        ("reasoning-billed-as-answer", "All of it is completion, none reasoning.",
         usage(25, 0, _INSIDE)),
        ("cached-beyond-prompt", "More cached than there is.", usage(25, 20, _INSIDE, cached=8)),
    )  # fmt: skip
    return [
        refused(
            f"bill-{name}",
            about,
            "verify_usage",
            {"usage": block, "reasoning_tokens": 20, "answer_tokens": 5},
            "VerificationError",
        )
        for name, about, block in cases
    ]


def _told() -> list[dict[str, object]]:
    inside, beside = usage(25, 20, _INSIDE), usage(5, 20, _BESIDE)
    cases: tuple[tuple[str, str, dict[str, object], dict[str, object], bool], ...] = (
        ("the-same", "Told as signed.", inside, inside, True),
        ("by-the-other-convention", "25 tokens, however they are written.", beside, inside, True),
        ("of-no-reasoning", "25 tokens, of which nobody told any as reasoning.",
         usage(25, 0, _UNSAID), inside, True),
        ("of-less-reasoning", "The split is signed, the sum is paid for.",
         usage(25, 3, _INSIDE), inside, True),
        ("unsaid-with-reasoning", "A convention unsaid: the completion is everything.",
         usage(25, 20, _UNSAID), inside, True),
        ("of-less-reasoning-beside", "Beside the completion, less reasoning is a smaller sum.",
         usage(5, 3, _BESIDE), beside, False),
        ("one-more", "One completion token more.", usage(26, 20, _INSIDE), inside, False),
        ("one-less", "One completion token less.", usage(24, 20, _INSIDE), inside, False),
        ("under-a-swapped-convention", "The same numbers are 45 tokens beside each other.",
         usage(25, 20, _BESIDE), inside, False),
        ("of-another-prompt", "A prompt token more.",
         usage(25, 20, _INSIDE, prompt=8), inside, False),
        ("of-another-cache", "Cached prompt tokens cost less.",
         usage(25, 20, _INSIDE, cached=1), inside, False),
        ("of-nothing", "No token at all.", usage(0, 0, _UNSAID, prompt=0), inside, False),
    )  # fmt: skip
    return [
        accepted(
            f"told-{name}",
            about,
            "told_as_signed",
            {"told": told, "signed": signed},
            {"same": same},
        )
        for name, about, told, signed, same in cases
    ]
