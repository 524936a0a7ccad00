"""The token table: its rows, its root, and a cache that is never believed unchecked."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from coin_protocol import merkle, table
from coin_protocol.embedding import TextEmbedder, Vectors, embed_texts
from coin_protocol.encoding import token_fingerprint
from coin_protocol.errors import InvalidInputError, ModelMismatchError, QuantisationError
from coin_protocol.quantise import quantise, row_bytes
from coin_protocol.table import (
    TableWarning,
    TokenTable,
    build_rows,
    load_table,
    make_table,
    table_path,
    write_rows,
)
from coin_protocol.testing.small import (
    DIMENSION,
    VOCABULARY,
    SmallEmbedder,
    SmallTokenizer,
    small_profile,
    small_table,
)
from coin_protocol.tokenizer import Tokenizer, token_text
from coin_protocol.v1 import profile_pb2

PROFILE = small_profile().message
SHAPE = (VOCABULARY, row_bytes(DIMENSION))


def models() -> tuple[Tokenizer, TextEmbedder]:
    return SmallTokenizer(), SmallEmbedder()


def unneeded() -> tuple[Tokenizer, TextEmbedder]:
    pytest.fail("the cached table was not used")


def npy(rows: npt.NDArray[np.unsignedinteger[Any]]) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()


class Counting(SmallEmbedder):
    """Counts the inputs it embeds."""

    def __init__(self) -> None:
        self.inputs: list[tuple[int, ...]] = []

    def encode(
        self,
        inputs: Sequence[tuple[int, ...]],
        progress: Callable[[int], None] | None = None,
    ) -> Vectors:
        self.inputs += inputs
        return super().encode(inputs, progress)


class Twins(SmallTokenizer):
    """Has two texts for all its ids."""

    def token_bytes(self, token_id: int) -> bytes:
        return super().token_bytes(token_id % 2 + 65)


def test_each_row_is_the_quantised_embedding_of_its_tokens_text() -> None:
    tokenizer, embedder = models()
    for token_id in (0, 65, 200, 256, VOCABULARY - 1):
        text = token_text(tokenizer.token_bytes(token_id))
        wanted = quantise(embed_texts(embedder, [text]))[0].tobytes()
        assert small_table().row(token_id) == wanted


def test_tokens_with_the_same_text_are_embedded_once_and_told_apart_by_id() -> None:
    embedder = Counting()
    built = TokenTable(build_rows(Twins(), embedder))
    assert sorted(embedder.inputs) == [tuple(b"A"), tuple(b"B")]
    assert built.row(0) == built.row(2) != built.row(1)
    assert len({fingerprint.tobytes() for fingerprint in built.fingerprints}) == VOCABULARY


def test_a_build_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    build_rows(*models(), lambda done, total: told.append((done, total)))
    assert told
    texts = {token_text(SmallTokenizer().token_bytes(i)) for i in range(VOCABULARY)}
    assert told[-1] == (len(texts), len(texts))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_build_counts_what_the_model_has_read() -> None:
    class OneByOne(SmallEmbedder):
        def encode(
            self,
            inputs: Sequence[tuple[int, ...]],
            progress: Callable[[int], None] | None = None,
        ) -> Vectors:
            assert progress is not None
            for _ in inputs:
                progress(1)
            return super().encode(inputs)

    told: list[tuple[int, int]] = []
    build_rows(Twins(), OneByOne(), lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2)]


def test_fingerprints_and_root_are_those_of_the_protocol() -> None:
    built = small_table()
    fingerprints = [token_fingerprint(i, built.row(i)) for i in range(VOCABULARY)]
    assert [entry.tobytes() for entry in built.fingerprints] == fingerprints
    assert built.root == merkle.root([merkle.leaf_hash(entry) for entry in fingerprints])
    assert len(built) == VOCABULARY


def test_fingerprints_do_not_depend_on_the_chunks_they_are_made_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for chunk in (1, 7, VOCABULARY, VOCABULARY + 1):
        monkeypatch.setattr(table, "_ROWS_PER_CHUNK", chunk)
        assert TokenTable(small_table().rows).root == small_table().root


@pytest.mark.parametrize("token_id", [0, 1, 255, 256, VOCABULARY - 1])
def test_every_row_is_provable_under_the_root(token_id: int) -> None:
    built = small_table()
    merkle.verify_inclusion(
        leaf_hash=merkle.leaf_hash(token_fingerprint(token_id, built.row(token_id))),
        index=token_id,
        size=VOCABULARY,
        proof=built.proof(token_id),
        root=built.root,
    )


def test_a_vector_that_cannot_be_quantised_stops_the_build() -> None:
    class Zero(SmallEmbedder):
        def encode(
            self,
            inputs: Sequence[tuple[int, ...]],
            progress: Callable[[int], None] | None = None,
        ) -> Vectors:
            return 0 * super().encode(inputs, progress)

    with pytest.raises(QuantisationError):
        build_rows(SmallTokenizer(), Zero())


def test_a_table_is_built_once_then_read_without_the_models(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    built = load_table(PROFILE, models, folder=folder)
    assert built.root == PROFILE.tokenizer.token_table_root
    read = load_table(PROFILE, unneeded, folder=folder)
    assert read.root == built.root
    assert (read.rows == small_table().rows).all()
    assert isinstance(read.rows.base, np.memmap)
    assert not read.rows.flags.writeable


def test_a_build_leaves_the_table_and_its_lock_and_nothing_else(tmp_path: Path) -> None:
    load_table(PROFILE, models, folder=tmp_path)
    path = table_path(PROFILE, tmp_path)
    assert set(path.parent.iterdir()) <= {path, path.with_suffix(".lock")}


def test_the_build_is_told_to_the_caller(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    load_table(PROFILE, models, folder=tmp_path, progress=lambda *at: told.append(at))
    assert told
    told.clear()
    load_table(PROFILE, models, folder=tmp_path, progress=lambda *at: told.append(at))
    assert told == []


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COIN_CACHE_DIR", str(tmp_path))
    assert table_path(PROFILE) == table_path(PROFILE, tmp_path)
    assert tmp_path in table_path(PROFILE).parents
    load_table(PROFILE, models)
    load_table(PROFILE, unneeded)
    monkeypatch.delenv("COIN_CACHE_DIR")
    assert tmp_path not in table_path(PROFILE).parents
    assert table_path(PROFILE).name == table_path(PROFILE, tmp_path).name


def test_a_table_stays_where_earlier_versions_kept_it(tmp_path: Path) -> None:
    profile = small_profile().message
    for names, name in (
        (("tekken", "all-MiniLM-L6-v2"), "tekken--all-MiniLM-L6-v2"),
        (("../a b/Z9", "_\u00e9_"), "-a-b-Z9---"),
        (("x" * 64, "y" * 65), "x" * 64 + "--" + "y" * 64),
    ):
        profile.tokenizer.name, profile.embedding.name = names
        spec, model = profile.tokenizer, profile.embedding
        files = sha256(spec.sha256 + model.weights_sha256 + model.tokenizer_sha256).hexdigest()
        wanted = tmp_path / "tables" / f"{name}--{files[:16]}.npy"
        assert table_path(profile, tmp_path) == wanted


def altered(field: str) -> profile_pb2.Profile:
    profile = small_profile().message
    part, name = field.split(".")
    setattr(getattr(profile, part), name, bytes(32))
    return profile


@pytest.mark.parametrize(
    "field", ["tokenizer.sha256", "embedding.weights_sha256", "embedding.tokenizer_sha256"]
)
def test_other_files_have_another_place_in_the_cache(field: str, tmp_path: Path) -> None:
    assert table_path(altered(field), tmp_path) != table_path(PROFILE, tmp_path)


def zip_of_arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, rows=small_table().rows)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"any": "object"}], object), allow_pickle=True)
    return file.getvalue()


def headed(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(6000)


GOOD = npy(small_table().rows)
BROKEN = {
    "empty": b"",
    "magic only": GOOD[:6],
    "half a header": GOOD[:40],
    "half written": GOOD[: len(GOOD) // 2],
    "one byte short": GOOD[:-1],
    "one bit flipped": GOOD[:-1] + bytes((GOOD[-1] ^ 1,)),
    "no numpy file": b"any bytes at all, and more of them",
    "one row less": npy(small_table().rows[:-1]),
    "one row more": npy(np.vstack([small_table().rows, small_table().rows[:1]])),
    "other dimension": npy(small_table().rows[:, :-1].copy()),
    "flat": npy(small_table().rows.ravel()),
    "wider": npy(small_table().rows.astype(np.uint16)),
    "signed": GOOD.replace(b"'|u1'", b"'|i1'"),
    "rows swapped": npy(small_table().rows[::-1].copy()),
    "pickle": pickled(),
    "bare pickle": b"\x80\x04K\x01.",
    "bad dtype": headed(b"{'descr': 'zz', 'fortran_order': False, 'shape': (300, 20), }\n"),
    "bad header": headed(b"\x00\xff\n"),
    "negative shape": headed(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 20), }\n"),
    "zip of arrays": zip_of_arrays(),
    "unclosed header": headed(b"{'descr'"),
    "endless shape": headed(
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1%s, 20), }\n" % (b"0" * 30)
    ),
}


def check_rebuilt(content: bytes, folder: Path) -> None:
    path = table_path(PROFILE, folder)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.warns(TableWarning, match=f"{path.name} is unusable .* building it again"):
        built = load_table(PROFILE, models, folder=folder)
    assert built.root == PROFILE.tokenizer.token_table_root
    assert path.read_bytes() == GOOD
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_table(PROFILE, unneeded, folder=folder)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_an_unusable_cache_is_built_again_with_a_warning(content: bytes, tmp_path: Path) -> None:
    check_rebuilt(content, tmp_path)


def test_a_cache_cut_to_the_head_of_a_zip_is_closed_and_built_again(tmp_path: Path) -> None:
    check_rebuilt(zip_of_arrays()[:30], tmp_path)


def test_a_pickle_in_the_cache_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    file = io.BytesIO()
    np.save(file, np.array([Trap()], object), allow_pickle=True)
    check_rebuilt(file.getvalue(), tmp_path / "cache")
    assert not (tmp_path / "sprung").exists()


def test_models_that_give_another_table_are_refused_and_nothing_is_cached(tmp_path: Path) -> None:
    profile = small_profile().message
    profile.tokenizer.token_table_root = bytes(32)
    with pytest.raises(ModelMismatchError) as caught:
        load_table(profile, models, folder=tmp_path)
    assert small_table().root.hex() in str(caught.value)
    assert bytes(32).hex() in str(caught.value)
    assert not table_path(profile, tmp_path).exists()


def test_a_failed_build_leaves_no_lock_held(tmp_path: Path) -> None:
    def fail() -> tuple[Tokenizer, TextEmbedder]:
        raise ModelMismatchError

    with pytest.raises(ModelMismatchError):
        load_table(PROFILE, fail, folder=tmp_path)
    assert load_table(PROFILE, models, folder=tmp_path).root == small_table().root


def test_rows_that_cannot_be_written_leave_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.npy"
    write_rows(path, small_table().rows)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, f"no space left for {descriptor}")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidInputError, match=r"cannot write .*table\.npy: no space left"):
        write_rows(path, small_table().rows[:1])
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == GOOD


def test_rows_are_never_written_as_pickles(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_rows(tmp_path / "table.npy", np.array([{"any": "object"}], object))
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_a_root_yet_is_made_told_and_kept(tmp_path: Path) -> None:
    profile = small_profile().message
    profile.tokenizer.token_table_root = b""
    told: list[tuple[int, int]] = []
    folder = tmp_path / "not" / "there" / "yet"
    made = make_table(profile, *models(), folder=folder, progress=lambda *at: told.append(at))
    assert made.root == PROFILE.tokenizer.token_table_root
    assert told
    path = table_path(profile, folder)
    assert path.read_bytes() == GOOD
    assert set(path.parent.iterdir()) <= {path, path.with_suffix(".lock")}
    assert load_table(PROFILE, unneeded, folder=folder).root == made.root


def test_threads_that_ask_at_once_build_once(tmp_path: Path) -> None:
    asking, builds = threading.Barrier(4), []

    def counted() -> tuple[Tokenizer, TextEmbedder]:
        builds.append(threading.get_ident())
        return models()

    def ask(_: int) -> bytes:
        asking.wait()
        return load_table(PROFILE, counted, folder=tmp_path).root

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {small_table().root}
    assert len(builds) == 1


def ask_from_a_process(folder: Path) -> bytes:
    def noted() -> tuple[Tokenizer, TextEmbedder]:
        with (folder / "builds").open("a") as file:
            file.write("built\n")
        return models()

    return load_table(small_profile().message, noted, folder=folder).root


def test_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        roots = set(pool.map(ask_from_a_process, [tmp_path] * 4))
    assert roots == {small_table().root}
    assert (tmp_path / "builds").read_text() == "built\n"
