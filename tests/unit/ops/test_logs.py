from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.logs import LogFormat, configure_logging
from tests.support.logs import logging_as_before
from tests.unit.ops.test_redact import PLANTED, PLANTED_SOMEWHERE, SECRET_NAMES, SECRETS

PASSWORD = f"p:{PLANTED}"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with logging_as_before():
        yield


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_to_connect(local: str) -> None:
    try:
        msg = f"no route to postgresql://coin:{PASSWORD}@db/coin?password={local}"
        raise_as(OSError, msg)
    except OSError as error:
        msg = f"gave up: {error}"
        raise RuntimeError(msg) from error


def raise_as(kind: type[Exception], message: str) -> None:
    raise kind(message)


@pytest.mark.parametrize("output", ["json", "console"])
def test_what_is_planted_never_comes_out_of_either_way_in(output: LogFormat) -> None:
    stream = io.StringIO()
    configure_logging(output=output, stream=stream)

    @given(PLANTED_SOMEWHERE, SECRET_NAMES, SECRETS)
    def check(value: object, name: str, secret: object) -> None:
        structlog.get_logger("a").info("said", value=value, **{name: secret})
        # `logging` refuses a few names, and takes the rest as attributes of the record.
        logging.getLogger("b").info("said %s", value, extra={f"x_{name}": secret})
        assert PLANTED not in stream.getvalue()

    check()
    assert "said" in stream.getvalue()


@given(st.sampled_from(["a", "uvicorn.error", "sqlalchemy.engine", "alembic.runtime", "grpc"]))
def test_an_exception_is_shown_without_locals_and_without_the_password(name: str) -> None:
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    try:
        fail_to_connect(PLANTED)
    except RuntimeError:
        logging.getLogger(name).exception("failed")
    (line,) = lines(stream)
    assert PLANTED not in json.dumps(line)
    assert line["logger"] == name
    errors = line["exception"]
    assert isinstance(errors, list)
    assert [error["exc_type"] for error in errors] == ["RuntimeError", "OSError"]
    assert all("locals" not in frame for error in errors for frame in error["frames"])


def test_an_uncaught_exception_is_a_line_like_any_other() -> None:
    stream = io.StringIO()
    configure_logging(output="json", stream=stream, secrets=[PASSWORD])

    def fail() -> None:
        raise ValueError(PASSWORD)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    assert [line["level"] for line in lines(stream)] == ["critical", "critical"]
    assert PLANTED not in stream.getvalue()


def test_a_line_that_cannot_be_formatted_does_not_print_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    logging.getLogger("a").warning("%d", PLANTED)
    captured = capsys.readouterr()
    assert PLANTED not in stream.getvalue() + captured.err + captured.out
    assert "could not be written" in stream.getvalue()


def test_bytes_among_the_arguments_are_shown_by_their_length() -> None:
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    logging.getLogger("a").warning("got %s and %s", PLANTED.encode(), {"prompt": PLANTED})
    logging.getLogger("a").warning("got %(prompt)s", {"prompt": PLANTED})
    assert [line["event"] for line in lines(stream)] == [
        "got [13 bytes] and {'prompt': '[redacted]'}",
        "got [redacted]",
    ]


def test_libraries_do_not_write_past_the_configuration() -> None:
    library = logging.getLogger("uvicorn.error")
    own = io.StringIO()
    handler = logging.StreamHandler(own)
    library.addHandler(handler)
    stream = io.StringIO()
    configure_logging(output="json", stream=stream)
    library.error("once")
    assert own.getvalue() == ""
    assert [line["event"] for line in lines(stream)] == ["once"]


def test_for_people_no_text_looks_like_a_line_of_its_own() -> None:
    forged = "lab\n2026-01-01T00:00:00Z [critical ] all is lost"
    stream = io.StringIO()
    configure_logging(output="console", stream=stream)
    extra = {"pro\nvider": forged, "several": [forged], "reason": forged}
    logging.getLogger("a").warning("a reply of %s", forged, extra=extra)
    logging.getLogger("a").error("failed", exc_info=ValueError(forged))
    first, second, *trace = stream.getvalue().splitlines()
    assert r"a reply of lab\n2026" in first
    assert first.count("all is lost") == 4
    assert "failed" in second
    assert trace
    assert all(line.startswith("    ") for line in trace)
    assert "[critical ] all is lost" in trace[-1]


def test_statements_of_the_database_are_not_logged_at_any_level() -> None:
    stream = io.StringIO()
    configure_logging(output="json", stream=stream, level="debug")
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT …")
    logging.getLogger("uvicorn.access").info("GET /")
    assert stream.getvalue() == ""


def test_levels_below_the_one_asked_for_are_left_out() -> None:
    stream = io.StringIO()
    configure_logging(output="json", stream=stream, level="warning")
    structlog.get_logger("a").info("quiet")
    structlog.get_logger("a").warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="wanted one of debug"):
        configure_logging(level="loud")  # type: ignore[arg-type] # it is the point
