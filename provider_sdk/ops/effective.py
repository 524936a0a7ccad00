"""Show the settings in force, without a secret."""

from __future__ import annotations

from coin_protocol.database.url import shown_database_url
from coin_protocol.ops.effective import MASK, Shown, shown_settings
from provider_sdk.ops.settings import ProviderSettings


def effective_settings(settings: ProviderSettings) -> dict[str, Shown]:
    """Return what is in force, by name, as JSON can say it, secrets masked."""
    found = shown_settings(settings)
    found["database"] = shown_database_url(settings.database.get_secret_value())
    # Of a URI the scheme is no secret, and tells which kind of key is in use.
    found["signer"] = _scheme(settings.signer_uri)
    found["sealing_key"] = _scheme(settings.sealing_uri)
    return found


def _scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition(":")
    return f"{scheme}:{MASK}" if separator else MASK
