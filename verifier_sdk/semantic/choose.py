"""Which judge a policy asks for."""

from __future__ import annotations

from pathlib import Path

from coin_protocol.models import Models
from coin_protocol.profile import Policy
from verifier_sdk.semantic.cosine import CosineJudge
from verifier_sdk.semantic.judge import Judge
from verifier_sdk.semantic.model_file import ModelFile


def judge_for(policy: Policy, models: Models, path: Path | None = None) -> Judge:
    """Return the learned judge that a policy names, or its cosine rule where it names none.

    Args:
        policy: The verifier's.
        models: Of the profile.
        path: Of a model file, which the policy must name; by default the one that ships.

    Raises:
        ModelMismatchError: The policy does not name the file.
        ConfigurationError: The file is none, or was trained for another profile or other rounds.
    """
    if path is None and not policy.message.semantic_model_sha256:
        return CosineJudge(policy.message.cosine_rules)
    # Loads torch.
    from verifier_sdk.semantic.learned import LearnedJudge

    file = ModelFile.shipped() if path is None else ModelFile.from_file(path)
    file.require_policy(policy)
    return LearnedJudge.load(file, models.profile, models.tokenizer, policy.message.learned_rules)
