"""The local socket: what `postern status` and other commands ask of a running agent.

The journal's file is open exclusively, so nobody else can read it: other programs of this machine ask here.
One JSON object a line each way; the socket belongs to the agent's user alone. It can open nothing: a question
changes nothing, or takes away (a wipe, a person forgotten), or hands over signed documents to be judged.
"""

import asyncio
import contextlib
import inspect
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

SOCKET = "control.sock"
LINE_LIMIT = 4096
ANSWER_LIMIT = 1024 * 1024
ANSWER_S = 5.0
"""Longest to wait for a question, and for an answer that needs no work."""
WORK_S = 60.0
"""Longest to wait for an answer that does: a card may take its time to sync."""

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Takes the question with its arguments. Raises ValueError, in words for the operator, for a wrong one."""


@asynccontextmanager
async def serve(path: Path, answers: Mapping[str, Answer]) -> AsyncIterator[None]:
    """Answer questions while the context lasts."""

    talks: set[asyncio.Task[Any]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            async with asyncio.timeout(ANSWER_S):
                question = await reader.readline()
            async with asyncio.timeout(WORK_S):
                writer.write(await _answer(question, answers) + b"\n")
                await _close(writer)
        except (TimeoutError, ValueError, ConnectionError):
            # Whoever asked is gone, too slow, or not one of ours.
            pass
        finally:
            writer.transport.abort()
            await _close(writer)
            talks.discard(task)

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        # Before anybody is listened to: there is no moment at which another user could ask.
        path.chmod(0o600)
        server = await asyncio.start_unix_server(talk, sock=listening, limit=LINE_LIMIT)
        try:
            yield
        finally:
            server.close()
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
            # Where the disk takes no more writes there is worse to tell; the next start removes it, too.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


async def _answer(line: bytes, answers: Mapping[str, Answer]) -> bytes:
    try:
        question = json.loads(line)
        answer = answers[question["ask"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return json.dumps({"error": f'expected {{"ask": one of {", ".join(answers)}}}'}).encode()
    try:
        said = answer(question)
        return json.dumps(dict(await said if inspect.isawaitable(said) else said)).encode()
    except ValueError as error:
        return json.dumps({"error": str(error)}).encode()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def ask(path: Path, question: str, **arguments: Any) -> dict[str, Any]:
    """Ask a running agent.

    Raises OSError when none is there, TimeoutError when it does not answer, ValueError when it refuses or
    says what cannot be understood.
    """
    async with asyncio.timeout(WORK_S if arguments else ANSWER_S):
        reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_LIMIT)
        try:
            writer.write(json.dumps({"ask": question, **arguments}).encode() + b"\n")
            answer = json.loads(await reader.readline() or b"null")
        finally:
            await _close(writer)
    if not isinstance(answer, dict):
        raise ValueError("no answer")
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer
