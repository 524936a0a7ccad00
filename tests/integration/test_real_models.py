"""The real tokenizer and embedding model: their files, the token table, long windows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import embed_pieces, embed_texts, quantised_windows, unit
from coin_protocol.encoding import token_fingerprint
from coin_protocol.errors import ConfigurationError, MissingDependencyError, ModelMismatchError
from coin_protocol.models import SOURCES, Models, Source, _locate
from coin_protocol.profile import Profile
from coin_protocol.quantise import quantise
from coin_protocol.tokenizer import text_of, token_text
from coin_protocol.v1 import profile_pb2

pytestmark = pytest.mark.models

IDS = (0, 1, 2, 500, 1000, 1255, 31_337, 65_536, 100_000, 131_071)


@pytest.fixture(scope="module")
def models() -> Models:
    quiet_models()
    return Models(Profile.shipped("default"))


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def altered(models: Models, name: str) -> profile_pb2.EmbeddingSpec:
    spec = profile_pb2.EmbeddingSpec()
    spec.CopyFrom(models.profile.message.embedding)
    setattr(spec, name, bytes(32))
    return spec


def test_the_models_that_the_profile_names_are_found_and_load(models: Models) -> None:
    spec = models.profile.message
    assert models.tokenizer.sha256 == spec.tokenizer.sha256
    assert models.tokenizer.vocabulary_size == spec.tokenizer.vocabulary_size
    assert models.embedder.dimension == spec.embedding.dimension
    # Two special pieces frame every input.
    assert models.embedder.max_pieces == spec.embedding.max_pieces - 2


def test_the_table_has_the_profiles_root(models: Models) -> None:
    assert models.table.root == models.profile.message.tokenizer.token_table_root
    assert len(models.table) == 131_072


def test_rows_computed_alone_are_those_of_the_table(models: Models, threads: int) -> None:
    assert threads
    texts = [token_text(models.tokenizer.token_bytes(number)) for number in IDS]
    for number, text in zip(IDS, texts, strict=True):
        (row,) = quantise(embed_texts(models.embedder, [text]))
        assert row.tobytes() == models.table.row(number)


def test_rows_do_not_depend_on_what_they_are_batched_with(models: Models, threads: int) -> None:
    assert threads
    texts = [token_text(models.tokenizer.token_bytes(number)) for number in IDS]
    fillers = [f"a longer text number {number} of some more pieces" for number in range(40)]
    mixed = [*fillers[:20], *texts, *fillers[20:], *reversed(texts)]
    rows = quantise(embed_texts(models.embedder, mixed))
    for at, number in enumerate(IDS):
        assert rows[20 + at].tobytes() == models.table.row(number)
        assert rows[-1 - at].tobytes() == models.table.row(number)


def test_fingerprints_are_those_of_the_rows(models: Models) -> None:
    for number in IDS:
        wanted = token_fingerprint(number, models.table.row(number))
        assert models.table.fingerprints[number].tobytes() == wanted


def test_a_window_longer_than_the_model_takes_is_not_cut_off(models: Models) -> None:
    embedder = models.embedder
    text = " ".join(f"light wave number {number} passes the air" for number in range(90))
    (pieces,) = embedder.pieces([text])
    most = embedder.max_pieces
    assert len(pieces) > 2 * most
    whole = embed_texts(embedder, [text])[0]
    parts = [pieces[at : at + most] for at in range(0, len(pieces), most)]
    vectors = unit(embedder.encode(parts))
    weights = np.array([len(part) for part in parts], np.float64)
    average = unit((vectors * weights[:, None]).sum(axis=0, keepdims=True))[0]
    assert np.allclose(whole, average, atol=1e-12)
    assert float(whole @ vectors[0]) < 0.9999


def test_an_end_that_a_model_would_not_see_still_counts(models: Models) -> None:
    start = "the air sends the short waves around " * 60
    texts = [start + "and so the sky is blue", start + "whales sing to each other at night"]
    first, second = embed_texts(models.embedder, texts)
    assert float(first @ second) < 0.9999


def test_windows_of_ids_are_embedded_as_their_text(models: Models) -> None:
    ids = models.tokenizer.encode("Light is scattered by air, and blue light the most.")
    spec = models.profile.message.embedding
    (row,) = quantised_windows(models.embedder, spec, [text_of(models.tokenizer, ids)])
    assert len(row) == 4 + spec.projection.dimension


def test_like_texts_are_near_and_others_far(models: Models) -> None:
    cat, kitten, tax = embed_texts(
        models.embedder, ["a cat sleeps", "a kitten is asleep", "income tax of companies"]
    )
    assert float(cat @ kitten) > 0.6
    assert float(cat @ tax) < 0.3


def test_nothing_gives_nothing(models: Models) -> None:
    assert models.embedder.pieces([]) == []
    assert models.embedder.encode([]).shape == (0, 384)
    assert np.linalg.norm(embed_texts(models.embedder, [""])) == pytest.approx(1.0)


def test_progress_counts_every_input(models: Models) -> None:
    told: list[int] = []
    inputs = models.embedder.pieces(["a", "b", "a longer text", ""])
    embed_pieces(models.embedder, inputs, told.append)
    assert sum(told) == 4


# Files that are not those of the profile


@pytest.mark.parametrize("name", ["weights_sha256", "tokenizer_sha256"])
def test_files_of_another_digest_are_refused_naming_both(models: Models, name: str) -> None:
    from coin_protocol.sentence_transformer import SentenceTransformerEmbedder

    found = getattr(models.profile.message.embedding, name).hex()
    folder = _locate("all-MiniLM-L6-v2", _no_hub)
    with pytest.raises(ModelMismatchError, match=f"{found}.*{bytes(32).hex()}"):
        SentenceTransformerEmbedder(folder, altered(models, name))


def test_a_model_of_another_dimension_is_refused_naming_both(models: Models) -> None:
    from coin_protocol.sentence_transformer import SentenceTransformerEmbedder

    spec = profile_pb2.EmbeddingSpec()
    spec.CopyFrom(models.profile.message.embedding)
    spec.dimension = 768
    with pytest.raises(ModelMismatchError, match=r"384.*768"):
        SentenceTransformerEmbedder(_locate("all-MiniLM-L6-v2", _no_hub), spec)


def test_a_tokenizer_of_another_digest_is_refused_naming_both(
    models: Models, tmp_path: Path
) -> None:
    wrong = tmp_path / "tekken.json"
    wrong.write_bytes(b"{}")
    wanted = models.profile.message.tokenizer.sha256.hex()
    with pytest.raises(ModelMismatchError, match=f"44136fa355b3.*{wanted}"):
        _ = Models(models.profile, tokenizer_path=wrong).tokenizer


def test_a_folder_without_the_model_is_a_configuration_error(
    models: Models, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no model\.safetensors"):
        _ = Models(models.profile, model_path=tmp_path).embedder


def test_without_the_library_the_error_names_the_extra(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"coin-audit\[embedding\]"):
        _ = Models(models.profile).embedder


def _no_hub(source: Source) -> Path:
    msg = f"{source.hub_repository} was looked for on the hub"
    raise AssertionError(msg)


def test_both_models_are_found_on_this_machine() -> None:
    for name in SOURCES:
        assert _locate(name, _no_hub).exists()
