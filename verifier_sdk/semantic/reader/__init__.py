"""Readers of token ids: what runs and whole blocks say by themselves (protocol, section 9).

readers = Readers.from_tensors(tensors)
readers.runs.read(ids)                  # (n, 4) -> (n, 7), log density ratios
readers.blocks.read(blocks)             # n whole blocks -> (n, 8), logits
text_features(block, vocabulary=readers.vocabulary, ...)
"""

from verifier_sdk.semantic.reader.block_reader import BLOCK_FAMILIES, BlockNet, BlockReader
from verifier_sdk.semantic.reader.features import FEATURES, text_features
from verifier_sdk.semantic.reader.readers import Readers
from verifier_sdk.semantic.reader.reference import ReferenceModel
from verifier_sdk.semantic.reader.run_reader import RUN_FAMILIES, RUN_TOKENS, RunNet, RunReader
from verifier_sdk.semantic.reader.vocabulary import Vocabulary

__all__ = [
    "BLOCK_FAMILIES",
    "FEATURES",
    "RUN_FAMILIES",
    "RUN_TOKENS",
    "BlockNet",
    "BlockReader",
    "Readers",
    "ReferenceModel",
    "RunNet",
    "RunReader",
    "Vocabulary",
    "text_features",
]
