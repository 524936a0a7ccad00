"""Models are found wherever they lie, and what cannot be found is said in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tokenizers
from tokenizers.models import WordLevel

from coin_protocol import models as module
from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    MissingDependencyError,
    ModelMismatchError,
    TryLaterError,
)
from coin_protocol.models import SOURCES, Models, Source, keep_tokenizer, kept_tokenizer
from coin_protocol.profile import Profile
from coin_protocol.testing.small import SmallEmbedder, SmallTokenizer, small_profile, small_table
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2

NAME = "all-MiniLM-L6-v2"
TOKENIZER = "tekken-240911"


def _fail(error: Exception) -> Callable[..., NoReturn]:
    def call(*_: Any, **__: Any) -> NoReturn:
        raise error

    return call


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is in a package that is not installed."""
    for name, source in SOURCES.items():
        monkeypatch.setitem(SOURCES, name, replace(source, package="no_such_package"))


def test_a_model_that_nobody_knows_is_a_configuration_error() -> None:
    profile = small_profile()
    with pytest.raises(ConfigurationError, match="no known source of 'small'"):
        _ = Models(profile).tokenizer
    with pytest.raises(ConfigurationError, match="no known source of 'small'"):
        _ = Models(profile).embedder


def test_a_package_on_this_machine_comes_before_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "coin_test_models"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    source = Source(package="coin_test_models", package_path="model")
    monkeypatch.setitem(SOURCES, NAME, source)
    assert module._locate(NAME, _fail(AssertionError())) == package / "model"


def test_a_package_without_the_files_leads_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "coin_test_empty").mkdir()
    (tmp_path / "coin_test_empty" / "__init__.py").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    source = Source(package="coin_test_empty", package_path="model")
    monkeypatch.setitem(SOURCES, NAME, source)
    assert module._locate(NAME, lambda found: tmp_path / found.package) == (
        tmp_path / "coin_test_empty"
    )


@pytest.mark.usefixtures("nowhere")
def test_without_a_package_the_hub_is_asked_for_the_named_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[tuple[Any, ...]] = []

    def download(*arguments: Any, **options: Any) -> str:
        asked.append((*arguments, *options.values()))
        return str(tmp_path)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert module._locate(TOKENIZER, module._hub_file) == tmp_path
    assert module._locate(NAME, module._hub_folder) == tmp_path
    assert asked[0] == ("mistralai/Mistral-Nemo-Instruct-2407", "tekken.json")
    assert asked[1][0] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "model.safetensors" in asked[1][1]


@pytest.mark.usefixtures("nowhere")
def test_a_hub_that_does_not_answer_is_to_be_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    errors = pytest.importorskip("huggingface_hub.errors")
    for error in (errors.LocalEntryNotFoundError("offline"), OSError("no network")):
        monkeypatch.setattr(hub, "hf_hub_download", _fail(error))
        monkeypatch.setattr(hub, "snapshot_download", _fail(error))
        with pytest.raises(TryLaterError, match="could not be fetched"):
            module._locate(TOKENIZER, module._hub_file)
        with pytest.raises(TryLaterError, match="could not be fetched"):
            module._locate(NAME, module._hub_folder)


@pytest.mark.usefixtures("nowhere")
def test_without_package_and_hub_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name, from_hub in ((TOKENIZER, module._hub_file), (NAME, module._hub_folder)):
        with pytest.raises(MissingDependencyError, match=r"coin-audit\[embedding\]"):
            module._locate(name, from_hub)


@pytest.mark.usefixtures("nowhere")
def test_what_the_hub_gives_is_checked_like_any_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "tekken.json").write_bytes(b"{}")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_: str(tmp_path / "tekken.json"))
    profile = Profile.shipped("default")
    with pytest.raises(ModelMismatchError, match=profile.message.tokenizer.sha256.hex()):
        _ = Models(profile).tokenizer


def test_the_paths_that_a_caller_gives_come_first(tmp_path: Path) -> None:
    profile = Profile.shipped("default")
    models = Models(profile, tokenizer_path=tmp_path / "none.json", model_path=tmp_path)
    with pytest.raises(ConfigurationError, match=r"none\.json"):
        _ = models.tokenizer
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        _ = models.embedder


def test_a_table_is_built_once_into_the_cache_that_a_caller_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(Models):
        loads = 0

        @property
        def tokenizer(self) -> SmallTokenizer:
            type(self).loads += 1
            return SmallTokenizer()

        @property
        def embedder(self) -> SmallEmbedder:
            return SmallEmbedder()

    monkeypatch.setenv("COIN_CACHE_DIR", str(tmp_path / "unused"))
    told: list[tuple[int, int]] = []
    for _ in range(2):
        models = Counting(small_profile(), cache=tmp_path, progress=lambda *done: told.append(done))
        assert models.table.root == small_table().root
        assert models.table is models.table
    assert Counting.loads == 1
    assert told[-1][0] == told[-1][1]
    assert not (tmp_path / "unused").exists()


# Tokenizer files that are kept


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tokenizer.json, and an empty folder for what is kept."""
    monkeypatch.setenv("COIN_DATA_DIR", str(tmp_path / "data"))
    tokenizer = tokenizers.Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))  # noqa: S106
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def profile_of(tokenizer: Tokenizer) -> Profile:
    message = profile_pb2.Profile()
    message.CopyFrom(small_profile().message)
    message.tokenizer.sha256 = tokenizer.sha256
    message.tokenizer.vocabulary_size = tokenizer.vocabulary_size
    return Profile.from_bytes(message.SerializeToString())


def test_a_kept_tokenizer_is_found_by_its_digest_under_any_name(kept: Path) -> None:
    made, path = keep_tokenizer(kept)
    kept.unlink()
    found = Models(profile_of(made)).tokenizer
    assert found.sha256 == made.sha256
    assert path == kept_tokenizer(made.sha256)
    assert path.is_relative_to(kept.parent / "data")


def test_a_kept_file_that_was_altered_is_refused(kept: Path) -> None:
    made, path = keep_tokenizer(kept)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelMismatchError, match=made.sha256.hex()):
        _ = Models(profile_of(made)).tokenizer


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"model": 1}'])
def test_what_is_no_tokenizer_is_not_kept(kept: Path, content: bytes) -> None:
    kept.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"tokenizer\.json"):
        keep_tokenizer(kept)
    assert not (kept.parent / "data").exists()


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COIN_DATA_DIR", str(kept / "below-a-file"))
    with pytest.raises(InvalidInputError, match="cannot make the folder"):
        keep_tokenizer(kept)
