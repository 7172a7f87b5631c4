"""The way between device and broker, as tests and demo bend it."""

import asyncio
import contextlib
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simulators.relay import Relay
from tests.brokers import PATIENCE, join_child_watchers

ROOT = Path(__file__).parent.parent


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """To something that answers with what it hears."""

    async def echo(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Relay("127.0.0.1", server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def through(relay: Relay) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection(relay.host, relay.port)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answered(reader: StreamReader, writer: StreamWriter, data: bytes) -> None:
    writer.write(data)
    assert await reader.readexactly(len(data)) == data


async def test_it_carries_both_ways_and_ends_when_one_end_does(relay: Relay) -> None:
    async with through(relay) as (reader, writer):
        await answered(reader, writer, bytes(range(256)) * 20_000)
        assert relay.carried == [256 * 20_000] * 2
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_long_way_takes_its_time(relay: Relay) -> None:
    relay.rtt = 0.1
    clock = asyncio.get_running_loop().time
    async with through(relay) as way:
        started = clock()
        await answered(*way, b"x")
        assert clock() - started >= 0.1


async def test_a_narrow_way_takes_its_time(relay: Relay) -> None:
    relay.rate = 100_000
    clock = asyncio.get_running_loop().time
    async with through(relay) as way:
        started = clock()
        await answered(*way, bytes(20_000))
        assert clock() - started >= 0.2


async def test_a_cut_breaks_what_is_there_and_what_comes(relay: Relay) -> None:
    async with through(relay) as (reader, writer):
        await answered(reader, writer, b"x")
        relay.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read()
    async with through(relay) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()
    relay.restore()
    async with through(relay) as way:
        await answered(*way, b"x")


async def test_a_cut_can_fall_inside_what_is_sent(relay: Relay) -> None:
    relay.cut_after = 5
    async with through(relay) as (reader, writer):
        await answered(reader, writer, b"abc")
        writer.write(b"defg")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(4)
    assert relay.cut_after is None


async def test_a_hung_way_gives_everything_back_when_it_moves_again(relay: Relay) -> None:
    async with through(relay) as (reader, writer):
        relay.hang()
        writer.write(b"abc")
        async with through(relay) as (other_reader, other_writer):
            other_writer.write(b"def")
            assert relay.accepted == 2
            relay.resume()
            assert await reader.readexactly(3) == b"abc"
            assert await other_reader.readexactly(3) == b"def"


async def test_a_connection_reset_while_the_way_hangs_is_told_later(relay: Relay) -> None:
    async with through(relay) as (reader, writer):
        await answered(reader, writer, b"x")
        relay.hang()
        writer.transport.abort()
    relay.resume()
    async with through(relay) as way:
        await answered(*way, b"x")


async def test_nobody_behind_it_is_a_reset() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with Relay("127.0.0.1", port) as relay, through(relay) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_it_runs_by_hand_and_ends_cleanly() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators.relay", "--to", "127.0.0.1:9", stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"listening on 127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    assert (await process.communicate()) == (b"carried 0 bytes to 127.0.0.1:9, 0 back\n", b"")
    join_child_watchers()
