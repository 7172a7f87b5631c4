"""The local socket: what `postern status` asks of a running agent.

The journal's file is open exclusively, so nobody else can read it: other programs of this machine ask here.
One JSON object a line each way; the socket belongs to the agent's user alone. It has no authority: every
question is one that changes nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

SOCKET = "control.sock"
LINE_LIMIT = 4096
ANSWER_S = 5.0

Answer = Callable[[], Mapping[str, Any]]


@asynccontextmanager
async def serve(path: Path, answers: Mapping[str, Answer]) -> AsyncIterator[None]:
    """Answer questions while the context lasts."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(_answer(await reader.readline(), answers) + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            # Whoever asked is gone, too slow, or not one of ours.
            pass
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(talk, path, limit=LINE_LIMIT)
    path.chmod(0o600)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _answer(line: bytes, answers: Mapping[str, Answer]) -> bytes:
    try:
        question = json.loads(line)["ask"]
        answer = dict(answers[question]())
    except (ValueError, KeyError, TypeError):
        answer = {"error": f'expected {{"ask": one of {", ".join(answers)}}}'}
    return json.dumps(answer).encode()


async def ask(path: Path, question: str) -> dict[str, Any]:
    """Ask a running agent. Raises OSError when none is there, TimeoutError when it does not answer."""
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(json.dumps({"ask": question}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await reader.readline() or b'{"error": "no answer"}')
            return answer
        finally:
            writer.close()
            await writer.wait_closed()
