"""Text that others wrote, as every database takes it."""

from __future__ import annotations


def storable(text: str) -> str:
    """Return text that SQLite and PostgreSQL keep: without character zero and halves of others.

    PostgreSQL refuses both, and whoever can have a row refused keeps it out of the node.
    """
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
