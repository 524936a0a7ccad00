"""Visible text again: the answer, or the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import numpy as np

from verifier_sdk.lab.attack import Ids, Material, filler
from verifier_sdk.lab.attacks.text import cut_sentences, encode, needed


@filler("answer_repeated", family="echoed")
def answer_repeated(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """The visible answer, sentence by sentence, again and again."""
    del rng
    return _again(material, needed(material.trace.answer, "answer"))


@filler("prompt_repeated", family="echoed")
def prompt_repeated(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """The prompt, sentence by sentence, again and again."""
    del rng
    return _again(material, needed(material.trace.question, "prompt"))


def _again(material: Material, text: str) -> Iterator[Ids]:
    return cycle(
        cut_sentences(material.tokenizer, encode(material.tokenizer, "\n\n" + text.strip()))
    )
