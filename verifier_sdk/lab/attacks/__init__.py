"""The attacks that ship, one idea a module. Importing this package defines them all.

`text` holds what they share: ordinary ids, sentences of ids, separators.
"""

from verifier_sdk.lab.attacks import (
    adaptive,
    echoed,
    forged,
    ngram,
    others,
    own,
    repeated,
    retrieved,
    split,
    vocabulary,
)

__all__ = [
    "adaptive",
    "echoed",
    "forged",
    "ngram",
    "others",
    "own",
    "repeated",
    "retrieved",
    "split",
    "vocabulary",
]
