"""No hook costs anything before a serving stack asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STACKS = ("vllm", "sglang", "litellm", "tensorrt_llm")


@pytest.mark.parametrize("hook", ["vllm", "sglang", "tensorrt_llm"])
def test_a_hook_imports_no_stack_and_no_model(hook: str) -> None:
    script = (
        f"import sys, provider_sdk.integrations.{hook}\n"
        f"print([m for m in {(*STACKS, 'torch', 'transformers', 'fastapi')!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
