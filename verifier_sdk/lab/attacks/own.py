"""The session's own words, in an order that says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verifier_sdk.lab.attack import Ids, Material, filler
from verifier_sdk.lab.attacks.text import cut_sentences, encode, fitting
from verifier_sdk.lab.attacks.vocabulary import drawn


@filler("bag_of_own_tokens", family="bag")
def bag_of_own_tokens(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Tokens of the prompt, the reasoning and the answer, drawn as often as they occur there."""
    return drawn(own_tokens(material), rng)


@filler("sentences_shuffled", family="shuffled")
def sentences_shuffled(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """All sentences of the reasoning in a random order, and then again in another one."""
    found = cut_sentences(material.tokenizer, material.ids)
    before = material.ids[-1:]
    while True:
        for at in rng.permutation(len(found)).tolist():
            # A space that is missing or doubled would give every joint away.
            first = fitting(material.tokenizer, before, found[at][:1])
            yield np.concatenate([first, found[at][1:]])
            before = found[at][-1:]


def own_tokens(material: Material) -> Ids:
    """Return the ids of prompt, reasoning and answer, uint32 (n,)."""
    trace, tokenizer = material.trace, material.tokenizer
    prompt, answer = encode(tokenizer, trace.question), encode(tokenizer, trace.answer)
    return np.concatenate([prompt, material.ids, answer])
