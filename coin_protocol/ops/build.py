"""Which release runs, as a metric."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Info


def add_build_info(registry: CollectorRegistry) -> None:
    """Add `coin_build_info` with the version of the package that runs."""
    info = Info("coin_build", "The package that runs.", registry=registry)
    info.info({"version": _version()})


def _version() -> str:
    try:
        return version("coin-audit")
    except PackageNotFoundError:
        # Run from a folder that is on the path and not installed.
        return "unknown"
