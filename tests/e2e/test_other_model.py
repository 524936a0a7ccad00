"""A model with a tokenizer of its own: its profile is made, and its replies are audited."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from coin_protocol.profile import Profile
from provider_sdk.replay import shipped_traces
from tests.support.command import run_coin, serving_coin

pytestmark = pytest.mark.models


def _trained(path: Path) -> Path:
    """Write a byte-level BPE of 600 ids, as many models have it with more."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<think>", "</think>", "<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([trace.reasoning for trace in shipped_traces()], trainer)
    tokenizer.save(str(path))
    return path


def test_its_replies_are_committed_to_and_audited(tmp_path: Path) -> None:
    tokenizer, profile = _trained(tmp_path / "tokenizer.json"), tmp_path / "own.profile.binpb"
    cache = {"COIN_CACHE_DIR": str(tmp_path / "cache")}
    provider_env = cache | {"COIN_DATA_DIR": str(tmp_path / "provider-data")}
    auditor_env = cache | {"COIN_DATA_DIR": str(tmp_path / "auditor-data")}
    keys, own = tmp_path / "keys", tmp_path / "auditor"
    assert run_coin("keys", "init", keys, "--name", "acme").code == 0
    assert run_coin("keys", "init", own, "--name", "auditor", "--role", "verifier").code == 0
    made = run_coin(
        *("profile", "make", tokenizer, "--name", "own", "--out", profile),
        *("--block-size", "512", "--whole-blocks", "0.1", "--json"),
        env=provider_env,
    )
    assert made.code == 0, made.said
    assert made.document["sha256"] == Profile.from_file(profile).digest.hex()
    receipt, bundle = tmp_path / "receipt.json", tmp_path / "bundle.json"
    replay = (
        *("provider", "replay", "--keys", keys, "--name", "acme", "--profile", profile),
        *("--verifier", f"auditor={own / 'key.pub.pem'}", "--listen", "127.0.0.1:0"),
    )
    with serving_coin(*replay, small=False, env=provider_env) as served:
        address = f"127.0.0.1:{served['port']}"
        asked = run_coin("ask", "code-02", "--provider", address, "--out", receipt)
        assert asked.code == 0, asked.said
        audit = (
            *("audit", receipt, "--provider", address, "--root", keys / "root.pub.pem"),
            *("--key", own / "key.pem", "--name", "auditor", "--profile", profile),
            *("--judge", "rules", "--bundle-out", bundle, "--json"),
        )
        stranger = run_coin(*audit, env=auditor_env)
        assert stranger.code == 2
        assert "coin tokenizer add" in stranger.said
        added = run_coin("tokenizer", "add", tokenizer, "--json", env=auditor_env)
        assert added.document["vocabulary_size"] == 600
        audited = run_coin(*audit, env=auditor_env)
    # The plain rule may leave it undecided; that it came so far means that all checks passed.
    assert audited.code in {0, 3}, audited.said
    failed = [check for check in audited.document["checks"] if "FAILED" in check["status"]]
    assert not failed
    assert "TIER_OPENED" in audited.document["tiers"]
    again = run_coin(
        *("bundle", "verify", bundle, "--root", keys / "root.pub.pem", "--profile", profile),
        *("--verifier-key", own / "key.pub.pem", "--judge", "rules", "--json"),
        env=auditor_env,
    )
    assert again.code == 0, again.said
    assert again.document["same"]
