"""An entry's line: one CloudEvents 1.0 JSON object. What is stored is what is sent and what is hashed."""

import json
from collections.abc import Mapping
from typing import Any

from agent.clock import Moment, rfc3339
from agent.workflow import Draft

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def compact(value: Any) -> bytes:
    """JSON as it is stored and sent: no spaces, UTF-8. Raises ValueError or TypeError for anything else."""
    return _encode(value).encode()


def line_of(
    draft: Draft, source: str, epoch: str, sequence: int, at: Moment, position: Mapping[str, Any]
) -> bytes:
    """The line of a draft in its place; `position` is merged into its data. Raises as `compact`."""
    clock = {"boot": at.boot, "mono_ns": at.mono_ns, "trust": at.trust, "error_s": at.error_s}
    entry = {
        "specversion": "1.0",
        "id": f"{epoch}-{sequence}",
        "source": source,
        "type": f"postern.{draft.type}",
        "subject": draft.subject,
        "time": rfc3339(at.utc_ns),
        "sequence": str(sequence),
        "lane": draft.lane.name.lower(),
        "data": {**draft.data, "clock": clock, **position},
    }
    return compact(entry)
