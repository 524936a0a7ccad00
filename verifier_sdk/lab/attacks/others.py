"""Real reasoning that is not this session's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from verifier_sdk.lab.attack import Ids, Material, NotApplicableError, filler
from verifier_sdk.lab.attacks.text import cut_sentences, encode
from verifier_sdk.lab.trace import Trace


@filler("other_model_same_question", family="other_model")
def other_model_same_question(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """What other models really reasoned on the same question, one after another."""
    found = material.library.same_question(material.trace)
    if not found:
        msg = f"no other model's reasoning on question {material.trace.qid!r}: give more traces"
        raise NotApplicableError(msg)
    return _one_after_another(material, found, rng)


@filler("session_replayed", family="replayed")
def session_replayed(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Whole reasoning on other questions of the same domain, one session after another."""
    found = material.library.other_questions(material.trace)
    if not found:
        msg = "no reasoning on any other question: give more traces"
        raise NotApplicableError(msg)
    alike = [other for other in found if other.domain == material.trace.domain]
    return _one_after_another(material, alike or found, rng)


def _one_after_another(
    material: Material, traces: Sequence[Trace], rng: np.random.Generator
) -> Iterator[Ids]:
    """Yield the sentences of traces in random order, all of one before the next."""
    between = encode(material.tokenizer, "\n\n")
    while True:
        for at in rng.permutation(len(traces)).tolist():
            ids = np.concatenate([between, material.library.ids(traces[at])])
            yield from cut_sentences(material.tokenizer, ids)
