"""The law every codec obeys, as one check: `obey(make_codec, vectors, ...)`.

A vector is the bytes of one whole frame and the frame they stand for. The clauses are about the stream,
not about the protocol: any cut gives the same frames, garbage costs nothing but itself, half a frame
followed by a reset leaves no trace, an over-long frame yields nothing (never its tail), no single flipped
bit passes a checksum, and the buffer stays bounded whatever comes.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from drivers.base import Codec

F = TypeVar("F")


def obey(
    make: Callable[[], Codec[F]],
    vectors: Sequence[tuple[bytes, F]],
    *,
    checksummed: bool,
    limit: int,
    over_long: bytes = b"",
    garbage: bytes = b"\x99\x88\x77",
    seed: int = 7,
) -> None:
    """`garbage` must hold no header; `limit` bounds the buffer; `over_long` is a frame past the cap."""
    chance = random.Random(seed)
    whole = b"".join(raw for raw, _ in vectors)
    expected = [frame for _, frame in vectors]

    def frames(*cuts: bytes) -> list[F]:
        codec = make()
        return [frame for cut in cuts for frame in codec.feed(cut)]

    assert frames(whole) == expected, "back to back"
    assert frames(*(whole[i : i + 1] for i in range(len(whole)))) == expected, "byte by byte"
    for _ in range(50):
        cuts, at = [], 0
        while at < len(whole):
            step = chance.randint(1, 9)
            cuts.append(whole[at : at + step])
            at += step
        assert frames(*cuts) == expected, "any cut"

    for raw, frame in vectors:
        if garbage:
            assert frames(garbage, raw) == [frame], "after garbage"
        for cut in range(1, len(raw)):
            codec = make()
            codec.feed(raw[:cut])
            codec.reset()
            assert codec.feed(raw) == [frame], f"half a frame of {cut} bytes, then reset"
            assert not codec.waiting, "nothing is held after a whole frame"
        if checksummed:
            for bit in range(len(raw) * 8):
                flipped = bytearray(raw)
                flipped[bit // 8] ^= 1 << bit % 8
                codec = make()
                passed = codec.feed(bytes(flipped))
                assert frame not in passed, f"bit {bit} flipped and not noticed"
                assert not passed, f"bit {bit} flipped gave another frame: {passed}"

    if over_long:
        codec = make()
        assert codec.feed(over_long) == [], "an over-long frame yields nothing"
        assert codec.noise.total() > 0, "and is counted"
        codec.reset()
        assert codec.feed(vectors[0][0]) == [expected[0]], "the next frame is read"

    codec = make()
    for _ in range(64):
        codec.feed(bytes(chance.randrange(256) for _ in range(1024)))
        assert len(codec._buffer) <= limit, "the buffer is bounded under endless noise"
