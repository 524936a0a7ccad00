"""Logging is the process's: what a test sets up there, it takes down."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo what `configure_logging` does, when the block ends."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:], level, sys.excepthook, threading.excepthook = before
        root.setLevel(level)
