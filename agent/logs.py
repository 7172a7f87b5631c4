"""The operator's log: readable on a terminal, one JSON object a line elsewhere.

The log is for the operator of this box, the journal is for the record: nothing decides from a log, and no
credential is ever written to one. That is why a traceback is logged without the values in it, and why bytes,
and whatever is named like a secret, are taken out of every line: a second net under those who log with care.
"""

import contextlib
import logging
import sys
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("auto", "text", "json")

KEPT = 200
"""Lines that are kept in memory, the latest."""
FRAMES = 8
"""Of a traceback that are kept, the innermost."""

HIDDEN = "<hidden>"
SECRET_NAMES = frozenset(("credential", "password", "pin", "private", "secret", "template", "token", "uid"))
"""Fields whose text is somebody's secret, however it got here."""


class _Line:
    """Writes lines to standard error. Where nobody takes them they are lost, and nothing else is."""

    def __init__(self, name: str = "postern") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


class _Threshold:
    """Lets pass what is of a level or above. It can be moved while the agent runs."""

    def __init__(self) -> None:
        self.level = logging.INFO

    def __call__(
        self, _logger: object, name: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        if logging.getLevelNamesMapping()[name.upper()] < self.level:
            raise structlog.DropEvent
        return event


_threshold = _Threshold()
_recent: deque[Mapping[str, Any]] = deque(maxlen=KEPT)


def recent() -> Sequence[Mapping[str, Any]]:
    """The latest lines of this process, oldest first. In place of an error: where it was, as `trace`."""
    return tuple(_recent)


def set_level(level: str) -> None:
    """What is below it is logged no more, until it is set again or the agent starts anew."""
    _threshold.level = logging.getLevelNamesMapping()[level.upper()]


def configure(level: str, style: str = "auto") -> None:
    """Send the log to standard error from now on."""
    set_level(level)
    readable = style == "text" or (style == "auto" and sys.stderr.isatty())
    processors: list[structlog.types.Processor] = [
        _threshold,
        structlog.contextvars.merge_contextvars,
        redact,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
        _keep,
    ]
    if readable:
        plain = structlog.dev.plain_traceback
        processors.append(
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        )
    else:
        trace = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors += [structlog.processors.ExceptionRenderer(trace), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=_Line,
        cache_logger_on_first_use=True,
    )


def _keep(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    line = {key: value for key, value in event.items() if key != "exc_info"}
    if isinstance(error := event.get("exc_info"), BaseException):
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        line["trace"] = [f"{each.filename}:{each.lineno} {each.name}" for each in frames]
    _recent.append(line)
    return event


def redact(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Take out of a line what must not be in it."""
    return {key: value if key == "exc_info" else _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    match value:
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case str() if key in SECRET_NAMES:
            return HIDDEN
        case Mapping():
            return {str(name): _shown(str(name), each) for name, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_shown(key, each) for each in value]
        case _:
            return value
