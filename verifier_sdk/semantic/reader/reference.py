"""A language model as a second reader: how surprised it is by a block. Off by default."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coin_protocol.errors import ConfigurationError, InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOKENS: Final = 1024
"""Tokens of the model's own that it reads of a text; the rest is cut off."""


class ReferenceModel:
    """A causal language model of the verifier's choice, loaded when first used.

    It reads text, with its own tokenizer, so it need not be the provider's. It is never a
    part of the policy: two verifiers agree on it only where they run the same model.
    """

    def __init__(self, name: str) -> None:
        """Take the name or folder of a model that `transformers` can load.

        Raises:
            InvalidInputError: The name is empty.
        """
        if not name:
            msg = "a reference model needs a name or a folder"
            raise InvalidInputError(msg)
        self.name = name

    def surprise(self, texts: Sequence[str]) -> list[float]:
        """Return the mean negative log-likelihood per token of each text, in nats.

        A text is read on its own, from its first token on, which is not scored; one of a
        single token gives NaN.

        Raises:
            MissingDependencyError: `transformers` is not installed.
            ConfigurationError: There is no such model.
        """
        import torch

        tokenizer, model = self._loaded
        found = []
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
            tokens = ids["input_ids"][:, :MAX_TOKENS]
            if tokens.shape[1] < 2:
                found.append(float(np.nan))
                continue
            with torch.inference_mode():
                logits = model(input_ids=tokens).logits[0, :-1].float()
            found.append(float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:])))
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            msg = "a reference model needs transformers: install coin-audit[embedding]"
            raise MissingDependencyError(msg) from error
        try:
            # Code of the model's own is never run, and pickled weights are never read.
            # Who audits chooses the model, most often a folder, and no verdict rests on it alone.
            tokenizer = AutoTokenizer.from_pretrained(  # nosec B615
                self.name, trust_remote_code=False
            )
            model = AutoModelForCausalLM.from_pretrained(  # nosec B615
                self.name, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            msg = f"the reference model {self.name!r} cannot be loaded: {error}"
            raise ConfigurationError(msg) from error
        return tokenizer, model.eval()
