"""When a certificate ends, for the metric that warns of it."""

from __future__ import annotations

from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate


def certificate_end(path: Path) -> float:
    """Return the Unix time at which a PEM certificate ends; 0 where it cannot be read now."""
    try:
        return load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0
