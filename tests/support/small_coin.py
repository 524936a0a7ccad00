"""`coin` over the small models: `python -m tests.support.small_coin provider replay …`."""

from __future__ import annotations

from coin_protocol import models
from coin_protocol.testing.small import SmallModels


def main() -> None:
    """Run `coin`, with the small models wherever a profile's models are looked for."""
    # Before any command is imported: they take the name from this module.
    models.Models = SmallModels  # type: ignore[misc]
    from coin_protocol.cli.main import main as coin

    coin()


if __name__ == "__main__":
    main()
