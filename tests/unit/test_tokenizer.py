"""Tokenizers: the bytes of every id, runs of ids as text, and files that are not what is wanted."""

from __future__ import annotations

import importlib.util
import json
import sys
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    MissingDependencyError,
    ModelMismatchError,
)
from coin_protocol.testing.profiles import default_profile
from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.tokenizer import (
    HuggingFaceTokenizer,
    TekkenTokenizer,
    Tokenizer,
    load_tokenizer,
    noncanonical_tokens,
    read_tokenizer,
    text_of,
    token_text,
)
from coin_protocol.v1 import profile_pb2

TEXTS = [
    "",
    "hello",
    "hello hello  world",
    " leading and trailing ",
    "tabs\tand\nlines\r\n\n",
    "ünïcödé é e\u0301",
    "漢字かな 🎉👩\u200d👩\u200d👧",
    "\u2581 \u0120 \x00\x7f\u00ad",
    "<s> [INST] <0x41> ##ing",
]


# The small tokenizer: ids below 256 are bytes, 256 on are `aa`, `ab` and so on.
AB = 257


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b" hello", " hello"),
        ("é漢🎉".encode(), "é漢🎉"),
        (b"\x00", "\x00"),
        (b"\xe4\xbd", "<0xE4><0xBD>"),
        (b"\xff", "<0xFF>"),
        (b"a\x80", "<0x61><0x80>"),
        (b"\xed\xa0\x80", "<0xED><0xA0><0x80>"),
        (b"\xc0\x80", "<0xC0><0x80>"),
    ],
)
def test_a_token_that_is_no_utf8_is_embedded_from_its_bytes_spelled_out(
    raw: bytes, text: str
) -> None:
    assert token_text(raw) == text


def test_a_character_split_over_tokens_is_whole_in_the_text_of_the_run() -> None:
    ids = list("aé漢🎉".encode())
    assert text_of(SmallTokenizer(), ids) == "aé漢🎉"
    assert text_of(SmallTokenizer(), ids[:-1]) == "aé漢\ufffd"
    assert text_of(SmallTokenizer(), ids[2:]) == "\ufffd漢🎉"
    assert text_of(SmallTokenizer(), []) == ""


def test_the_text_of_ids_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="token id 300 is outside"):
        text_of(SmallTokenizer(), [97, 300])


@pytest.mark.parametrize("text", ["", "abab", "xaby", "hello world", "ab é ab"])
def test_a_tokenizers_own_encoding_is_canonical(text: str) -> None:
    tokenizer = SmallTokenizer()
    assert noncanonical_tokens(tokenizer, tokenizer.encode(text)) == 0


@pytest.mark.parametrize(
    ("ids", "count"),
    [
        ([97, 98], 2),
        ([AB, 97, 98, AB], 2),
        ([120, 97, 98, 121], 2),
        (list(b"ababab"), 6),
        # Pairs off by one: the canonical ones start at each a.
        ([97, 281 + 1, 98], 3),
    ],
)
def test_each_token_that_splits_otherwise_than_the_tokenizer_counts(
    ids: list[int], count: int
) -> None:
    assert noncanonical_tokens(SmallTokenizer(), ids) == count


def test_a_character_cut_at_an_end_costs_its_own_tokens_only() -> None:
    tokenizer, cut = SmallTokenizer(), list("漢".encode())
    assert noncanonical_tokens(tokenizer, [AB, AB, *cut[:2]]) == 2
    assert noncanonical_tokens(tokenizer, [*cut[1:], AB, AB]) == 2
    assert noncanonical_tokens(tokenizer, [*cut[2:], AB, AB, *cut[:1]]) == 2
    assert noncanonical_tokens(tokenizer, cut[1:]) == 2


def test_bytes_that_are_no_text_cost_their_own_tokens_only() -> None:
    assert noncanonical_tokens(SmallTokenizer(), [AB, AB, 0xFF, AB, AB, AB]) == 1


def saved(tokenizer: tokenizers.Tokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def byte_level() -> tokenizers.Tokenizer:
    """Return byte-level BPE over all bytes with a few merges, as GPT-2 and its heirs have it."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "ll", "hell", "hello", "Ġhello"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback() -> tokenizers.Tokenizer:
    """Return BPE with bytes for what it has no piece for, as Llama 2 has it."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁helowrd"]
    pieces += ["he", "ll", "hell", "hello", "▁hello"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>")  # noqa: S106
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    """Return unigrams with spaces marked, as SentencePiece models have them."""
    pieces = [("<unk>", 0.0), *((char, -5.0) for char in "▁helowrd"), ("▁hello", -1.0)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    pieces = ["[UNK]", "hello", "##s", "##world", "#"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_ids_spell_any_text_back(text: str, tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(byte_level(), tmp_path))
    ids = tokenizer.encode(text)
    assert text_of(tokenizer, ids) == text
    assert noncanonical_tokens(tokenizer, ids) == 0


def test_byte_level_ids_cover_every_byte_once(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(byte_level(), tmp_path))
    single = [tokenizer.token_bytes(i) for i in range(256)]
    assert sorted(single) == [bytes((byte,)) for byte in range(256)]
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode(" hello")] == [b" hello"]


def test_a_byte_level_decoder_is_found_in_a_sequence(tmp_path: Path) -> None:
    inner = byte_level()
    inner.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    tokenizer = HuggingFaceTokenizer(saved(inner, tmp_path))
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode(" hello")] == [b" hello"]


@pytest.mark.parametrize("text", TEXTS[1:])
def test_byte_fallback_ids_spell_any_text_back_behind_one_space(text: str, tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(byte_fallback(), tmp_path))
    wanted = f" {text.removeprefix(' ')}".replace("\u2581", " ")
    assert text_of(tokenizer, tokenizer.encode(text)) == wanted


def test_byte_fallback_pieces_are_single_bytes(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(byte_fallback(), tmp_path))
    assert [tokenizer.token_bytes(1 + byte) for byte in range(256)] == [
        bytes((byte,)) for byte in range(256)
    ]
    ids = tokenizer.encode("hello é")
    assert [tokenizer.token_bytes(i) for i in ids] == [b" hello", b" ", b"\xc3", b"\xa9"]


def test_marked_spaces_are_spelled_as_spaces(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(metaspace(), tmp_path))
    ids = tokenizer.encode("hello world")
    assert [tokenizer.token_bytes(i) for i in ids][:2] == [b" hello", b" "]
    assert text_of(tokenizer, ids) == " hello world"


@pytest.mark.parametrize("make", [byte_fallback, metaspace])
def test_spaces_that_a_text_starts_with_are_kept(
    make: Callable[[], tokenizers.Tokenizer], tmp_path: Path
) -> None:
    tokenizer = HuggingFaceTokenizer(saved(make(), tmp_path))
    for text in (" hello", "  hello", "   hello"):
        assert text_of(tokenizer, tokenizer.encode(text)) == text


def test_without_a_decoder_marked_spaces_are_spaces_too(tmp_path: Path) -> None:
    path = saved(metaspace(), tmp_path)
    document = json.loads(path.read_bytes())
    document["decoder"] = None
    path.write_text(json.dumps(document), "utf-8")
    tokenizer = HuggingFaceTokenizer(path)
    assert text_of(tokenizer, tokenizer.encode("hello world")) == " hello world"


@pytest.mark.parametrize("make", [byte_fallback, metaspace])
def test_a_tokenizer_that_puts_a_space_first_is_canonical_to_itself(
    make: Callable[[], tokenizers.Tokenizer], tmp_path: Path
) -> None:
    tokenizer = HuggingFaceTokenizer(saved(make(), tmp_path))
    ids = tokenizer.encode("hello hello world hello")
    # Context is missing at the run's first end: a few at most.
    assert noncanonical_tokens(tokenizer, ids) <= 2


@pytest.mark.parametrize("make", [byte_level, byte_fallback, metaspace])
def test_a_cut_out_of_a_canonical_run_costs_a_few_tokens_however_long(
    make: Callable[[], tokenizers.Tokenizer], tmp_path: Path
) -> None:
    tokenizer = HuggingFaceTokenizer(saved(make(), tmp_path))
    ids = tokenizer.encode("hello hello world, hello é漢! " * 20)
    for start in range(12):
        for stop in range(len(ids) - 12, len(ids)):
            assert noncanonical_tokens(tokenizer, ids[start:stop]) <= 6


def test_word_pieces_are_spelled_without_their_mark(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(word_piece(), tmp_path))
    assert [tokenizer.token_bytes(i) for i in range(5)] == [
        b"[UNK]",
        b"hello",
        b"s",
        b"world",
        b"#",
    ]
    assert text_of(tokenizer, tokenizer.encode("hellos helloworld")) == "helloshelloworld"


def test_added_tokens_are_spelled_as_they_are_written(tmp_path: Path) -> None:
    inner = byte_level()
    inner.add_special_tokens(["<|end of text|>"])
    inner.add_tokens(["né Ġ"])
    tokenizer = HuggingFaceTokenizer(saved(inner, tmp_path))
    size = tokenizer.vocabulary_size
    assert size == 256 + 5 + 2
    assert tokenizer.token_bytes(size - 2) == b"<|end of text|>"
    assert tokenizer.token_bytes(size - 1) == "né Ġ".encode()


def test_encoding_adds_cuts_and_pads_nothing(tmp_path: Path) -> None:
    inner = byte_level()
    inner.add_special_tokens(["<s>", "<pad>"])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    inner.enable_truncation(2)
    inner.enable_padding(length=50, pad_token="<pad>")  # noqa: S106
    tokenizer = HuggingFaceTokenizer(saved(inner, tmp_path))
    ids = tokenizer.encode("hello hello hello")
    assert [tokenizer.token_bytes(i) for i in ids] == [b"hello", b" hello", b" hello"]


def test_ids_without_a_piece_spell_nothing(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer(models.WordPiece({"a": 0, "b": 3}, unk_token="a"))  # noqa: S106
    tokenizer = HuggingFaceTokenizer(saved(inner, tmp_path))
    assert [tokenizer.token_bytes(i) for i in range(4)] == [b"a", b"", b"", b"b"]
    assert tokenizer.vocabulary_size == 4


def test_a_file_that_cannot_encode_a_text_is_a_sentence_that_does_not_quote_it(
    tmp_path: Path,
) -> None:
    inner = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))  # noqa: S106
    tokenizer = HuggingFaceTokenizer(saved(inner, tmp_path))
    assert tokenizer.encode("a") == [0]
    with pytest.raises(InvalidInputError, match="cannot encode") as raised:
        tokenizer.encode("secret")
    assert raised.value.__suppress_context__
    assert "secret" not in str(raised.value)


def test_an_id_past_all_vocabularies_costs_no_memory(tmp_path: Path) -> None:
    path = saved(tokenizers.Tokenizer(models.WordLevel({"a": 7}, unk_token="a")), tmp_path)  # noqa: S106
    # The library writes a file with gaps in its ids by looking at each id up to the last.
    path.write_text(path.read_text().replace("7", f"{2**31}"))
    with pytest.raises(InvalidInputError, match="2147483648"):
        HuggingFaceTokenizer(path)


def tekken_path(name: str = "tekken_240911.json") -> Path:
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "data" / name


@pytest.fixture(scope="module")
def tekken() -> Tokenizer:
    """The tokenizer of the profile that ships."""
    return load_tokenizer(tekken_path(), default_profile().tokenizer)


def test_the_tekken_file_is_the_one_that_the_shipped_profile_names(tekken: Tokenizer) -> None:
    assert isinstance(tekken, TekkenTokenizer)
    assert tekken.sha256 == sha256(tekken_path().read_bytes()).digest()
    assert tekken.vocabulary_size == 131_072


@pytest.mark.parametrize("text", TEXTS)
def test_tekken_ids_spell_any_text_back(text: str, tekken: Tokenizer) -> None:
    ids = tekken.encode(text)
    assert text_of(tekken, ids) == text
    assert noncanonical_tokens(tekken, ids) == 0


def test_tekken_special_tokens_spell_their_names_and_come_of_no_text(tekken: Tokenizer) -> None:
    assert tekken.token_bytes(1) == b"<s>"
    assert tekken.token_bytes(3) == b"[INST]"
    assert min(tekken.encode("<s>[INST]</s>")) >= 1000


def test_tekken_bytes_follow_its_special_tokens(tekken: Tokenizer) -> None:
    assert [tekken.token_bytes(1000 + byte) for byte in range(256)] == [
        bytes((byte,)) for byte in range(256)
    ]


def test_text_split_into_bytes_is_all_but_wholly_noncanonical(tekken: Tokenizer) -> None:
    text = "The answer follows from the second equation, which we solve for x."
    ids = [1000 + byte for byte in text.encode()]
    canonical_bytes = sum(len(tekken.token_bytes(i)) == 1 for i in tekken.encode(text))
    assert noncanonical_tokens(tekken, ids) == len(ids) - canonical_bytes
    assert canonical_bytes < len(ids) / 10


@pytest.mark.parametrize("token_id", [-1, 131_072, 1 << 40])
def test_ids_outside_the_tekken_vocabulary_are_refused(token_id: int, tekken: Tokenizer) -> None:
    with pytest.raises(InvalidInputError, match=f"token id {token_id} is outside .* 131072 ids"):
        tekken.token_bytes(token_id)


@pytest.mark.parametrize("token_id", [-1, 261])
def test_ids_outside_a_vocabulary_are_refused(token_id: int, tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(saved(byte_level(), tmp_path))
    with pytest.raises(InvalidInputError, match=f"token id {token_id} is outside .* 261 ids"):
        tokenizer.token_bytes(token_id)


def small_tekken() -> dict[str, Any]:
    """Return a tekken document of the 256 bytes, special tokens apart."""
    return {
        "config": {
            "pattern": "\\S+|\\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 1256,
            "default_num_special_tokens": 1000,
            "version": "v3",
        },
        "vocab": [
            {"rank": byte, "token_bytes": b64encode(bytes((byte,))).decode(), "token_str": None}
            for byte in range(256)
        ],
    }


def written(document: object, folder: Path) -> Path:
    path = folder / "some.json"
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_files_are_told_apart_by_their_content(tmp_path: Path) -> None:
    assert isinstance(read_tokenizer(written(small_tekken(), tmp_path)), TekkenTokenizer)
    assert isinstance(read_tokenizer(saved(byte_level(), tmp_path)), HuggingFaceTokenizer)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"\x0a\x07tokenizer", "is not JSON"),
        (b"[]", "is neither"),
        (b"1", "is neither"),
        (b'"model"', "is neither"),
        (b"{}", "is neither"),
        (b'{"vocab": []}', "is neither"),
        (b'{"model": {}}', "is not a tokenizer.json"),
        (b'{"model": null}', "is not a tokenizer.json"),
        (b'{"model": {"type": "BPE"}}', "is not a tokenizer.json"),
        (b'{"vocab": [], "config": {}}', "is not a tekken"),
        (b'{"vocab": {}, "config": {"version": "v3"}}', "is not a tekken"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"^some\.json {found}"):
        read_tokenizer(path)


BROKEN: dict[str, bytes] = {
    "nested without end": b"[" * 100_000,
    "no pieces": b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
    "no byte level piece": json.dumps(
        {
            "model": {"type": "BPE", "vocab": {"漢": 0}, "merges": []},
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
        }
    ).encode(),
    "no hexadecimal byte": json.dumps(
        {
            "model": {"type": "BPE", "vocab": {"<0xZZ>": 0}, "merges": []},
            "decoder": {"type": "ByteFallback"},
        }
    ).encode(),
    "tekken of no config": b'{"vocab": [], "config": null}',
    "tekken of few pieces": json.dumps(small_tekken() | {"vocab": []}).encode(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_tokenizer_file_raises_nothing_but_an_invalid_input_error(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"some\.json"):
        read_tokenizer(path)


def spec_of(path: Path, *, size: int) -> profile_pb2.TokenizerSpec:
    digest = sha256(path.read_bytes()).digest()
    return profile_pb2.TokenizerSpec(name="wanted", sha256=digest, vocabulary_size=size)


def test_the_file_that_a_profile_names_is_loaded(tmp_path: Path) -> None:
    path = saved(byte_level(), tmp_path)
    spec = spec_of(path, size=261)
    assert load_tokenizer(path, spec).sha256 == spec.sha256


def test_another_file_is_refused_by_both_digests(tmp_path: Path) -> None:
    path = saved(byte_level(), tmp_path)
    spec = spec_of(path, size=261)
    found = sha256(path.read_bytes() + b"\n").hexdigest()
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ModelMismatchError) as caught:
        load_tokenizer(path, spec)
    for named in (found, spec.sha256.hex(), "wanted", "tokenizer.json"):
        assert named in str(caught.value)


def test_a_file_that_is_not_the_profiles_is_not_even_read(tmp_path: Path) -> None:
    path = saved(byte_level(), tmp_path)
    spec = spec_of(path, size=261)
    path.write_bytes(b"no tokenizer at all")
    with pytest.raises(ModelMismatchError):
        load_tokenizer(path, spec)


def test_another_vocabulary_size_is_refused_by_both_sizes(tmp_path: Path) -> None:
    path = saved(byte_level(), tmp_path)
    with pytest.raises(ModelMismatchError, match="has 261 ids, the profile's wanted has 262"):
        load_tokenizer(path, spec_of(path, size=262))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    spec = default_profile().tokenizer
    with pytest.raises(ConfigurationError, match=r"no tokenizer file .*none\.json; wanted tekken"):
        load_tokenizer(tmp_path / "none.json", spec)
    with pytest.raises(ConfigurationError, match="no tokenizer file"):
        load_tokenizer(tmp_path, spec)


@pytest.mark.parametrize(
    ("module", "read"),
    [
        ("tokenizers", HuggingFaceTokenizer),
        ("mistral_common.tokens.tokenizers.tekken", TekkenTokenizer),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    module: str, read: Callable[[Path], Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"install coin-audit\[embedding\]"):
        read(tekken_path())
