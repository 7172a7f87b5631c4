"""The local socket on a real AF_UNIX path."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import control
from agent.control import Answer, ask, serve


async def _twice(question: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(question.get("number"), int):
        raise ValueError("number: expected one")
    return {"twice": 2 * question["number"]}


ANSWERS: Mapping[str, Answer] = {
    "status": lambda _: {"units": 2},
    "big": lambda _: {"x": "y" * 500_000},
    "twice": _twice,
}


async def raw(path: Path, line: bytes) -> object:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return json.loads(said) if said else None


async def test_a_question_gets_its_answer(tmp_path: Path) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        assert await ask(tmp_path / "s", "status") == {"units": 2}
        assert len((await ask(tmp_path / "s", "big"))["x"]) == 500_000


async def test_an_unknown_question_is_told_the_known_ones(tmp_path: Path) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        with pytest.raises(ValueError, match="one of status, big, twice"):
            await ask(tmp_path / "s", "secrets")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"ask": []}\n',
        b'{"ask": null}\n',
        b"[" * 4000 + b"\n",
        b"\xff\n",
    ],
)
async def test_what_is_no_question_is_told_so(tmp_path: Path, line: bytes) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        said = await raw(tmp_path / "s", line)
        assert said == {"error": 'expected {"ask": one of status, big, twice}'}
        assert await ask(tmp_path / "s", "status") == {"units": 2}


async def test_a_question_without_end_gets_no_answer(tmp_path: Path) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        with contextlib.suppress(ConnectionError):
            assert await raw(tmp_path / "s", b"x" * 100_000) is None
        assert await ask(tmp_path / "s", "status") == {"units": 2}


async def test_nobody_else_may_ask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        async with serve(tmp_path / "s", ANSWERS):
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


async def test_the_socket_is_gone_afterwards_and_one_left_behind_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    async with serve(path, ANSWERS):
        assert await ask(path, "status") == {"units": 2}
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        await ask(path, "status")


async def test_whoever_says_nothing_does_not_keep_the_agent(tmp_path: Path) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        # Once another has been answered, the silent one has been accepted too.
        assert await ask(tmp_path / "s", "status") == {"units": 2}
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_whoever_is_too_slow_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        monkeypatch.setattr(control, "ANSWER_S", 0.01)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def somebody_else(path: Path, says: bytes | None) -> AsyncIterator[None]:
    """Takes one question, and says this or, with None, nothing until it is hung up on."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is None:
            await reader.read()
        else:
            writer.write(says)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        done.set_result(None)

    server = await asyncio.start_unix_server(talk, path)
    yield
    await done
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("said", [b"", b"nonsense\n", b"[1]\n", b"null\n"])
async def test_an_answer_that_is_none_is_an_error(tmp_path: Path, said: bytes) -> None:
    async with somebody_else(tmp_path / "s", said):
        with pytest.raises((ValueError, ConnectionError)):
            await ask(tmp_path / "s", "status")


async def test_an_agent_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_S", 0.05)
    async with somebody_else(tmp_path / "s", None):
        with pytest.raises(TimeoutError):
            await ask(tmp_path / "s", "status")


async def test_a_question_may_have_arguments_and_take_work(tmp_path: Path) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        assert await ask(tmp_path / "s", "twice", number=21) == {"twice": 42}


async def test_a_question_that_is_refused_is_told_why(tmp_path: Path) -> None:
    async with serve(tmp_path / "s", ANSWERS):
        with pytest.raises(ValueError, match="number: expected one"):
            await ask(tmp_path / "s", "twice", number="many")
