"""The operator's log: readable on a terminal, one JSON object a line elsewhere.

The log is for the operator of this box, the journal is for the record: nothing decides from a log, and no
credential is ever written to one.
"""

import logging
import sys

import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("auto", "text", "json")


def configure(level: str, style: str = "auto") -> None:
    """Send the log to standard error from now on."""
    readable = style == "text" or (style == "auto" and sys.stderr.isatty())
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if readable else "iso", utc=not readable),
    ]
    if readable:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    else:
        processors += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
