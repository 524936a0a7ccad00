"""The families of filler that detectors are trained for, one detector each."""

from typing import Final

FAMILIES: Final = (
    "random",
    "bag",
    "scattered",
    "retrieved",
    "repeated",
    "echoed",
    "shuffled",
    "ngram",
    "replayed",
    "split",
)
"""random vocabulary; a bag of the session's own tokens, in whole blocks; the same, scattered
inside blocks; sentences of other questions; own blocks again, as they are or edited; prompt or
answer again; own sentences in another order; n-gram text; another session's reasoning; a finer
tokenization of the same text."""

UNSEEN: Final = ("forged", "other_model", "adaptive")
"""Families that no detector is trained on, and that reports measure all the same."""
