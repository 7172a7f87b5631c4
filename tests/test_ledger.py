"""The ledger: published values of Certificate Transparency, then the definition of RFC 6962 as the judge."""

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.ledger import (
    EMPTY_ROOT,
    TILE,
    Frontier,
    Reader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)

# The reference leaves, roots and proofs that the Certificate Transparency logs and verifiers test with.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION: list[tuple[int, int, list[str]]] = [
    (0, 1, []),
    (0, 2, [A]),
    (1, 2, [ROOTS[1]]),
    (2, 3, [ROOTS[2]]),
    (1, 5, [ROOTS[1], B, D]),
    (0, 8, [A, B, C]),
    (5, 8, [D, E, ROOTS[4]]),
]
CONSISTENCY: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (1, 8, [A, B, C]),
    (2, 5, [B, D]),
    (2, 8, [B, C]),
    (6, 8, [F, E, ROOTS[4]]),
]
PUBLISHED = [leaf_hash(bytes.fromhex(line)) for line in INPUTS]

MOST = 3 * TILE + 40
LEAVES = [leaf_hash(f"entry {number}".encode()) for number in range(MOST)]


def reader(hashes: Sequence[bytes]) -> Reader:
    return lambda start, end: hashes[start:end]


TILES = [subtree_root(n * TILE, (n + 1) * TILE, reader(LEAVES)) for n in range(MOST // TILE)]


def hashes(proof: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in proof]


def width(size: int) -> int:
    """The largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


@cache
def defined_root(start: int, end: int) -> bytes:
    """The tree hash as section 2.1 of RFC 6962 defines it."""
    if end == start:
        return EMPTY_ROOT
    if end - start == 1:
        return LEAVES[start]
    split = start + width(end - start)
    return node_hash(defined_root(start, split), defined_root(split, end))


def defined_path(index: int, size: int, start: int = 0) -> list[tuple[str, bytes]]:
    """PATH of section 2.1.1: each hash with the side it stands on."""
    if size == 1:
        return []
    split = width(size)
    if index < split:
        beside = defined_root(start + split, start + size)
        return [*defined_path(index, split, start), ("right", beside)]
    beside = defined_root(start, start + split)
    return [*defined_path(index - split, size - split, start + split), ("left", beside)]


def defined_proof(old: int, new: int, start: int = 0, known: bool = True) -> list[tuple[str, bytes]]:
    """SUBPROOF of section 2.1.2: each hash with the side it stands on."""
    if old == new:
        return [] if known else [("seed", defined_root(start, start + new))]
    split = width(new)
    if old <= split:
        beside = defined_root(start + split, start + new)
        return [*defined_proof(old, split, start, known), ("right", beside)]
    beside = defined_root(start, start + split)
    return [*defined_proof(old - split, new - split, start + split, False), ("left", beside)]


def sides(proof: list[tuple[str, bytes]]) -> list[str]:
    return [side for side, _ in proof]


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ 1 << bit % (8 * len(value))).to_bytes(len(value), "big")


@st.composite
def places(draw: st.DrawFn, least: int = 1) -> tuple[int, int]:
    """A leaf and a tree that holds it; small trees as often as trees of several tiles."""
    size = draw(st.integers(least, 20) | st.integers(least, MOST))
    return draw(st.integers(0, size - 1)), size


@st.composite
def growths(draw: st.DrawFn) -> tuple[int, int]:
    """Two sizes, the first smaller, neither empty."""
    index, size = draw(places(least=2))
    return max(index, 1), size


# -- published values -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_come_out(size: int) -> None:
    expected = bytes.fromhex(ROOTS[size])
    assert Frontier().append(*PUBLISHED[:size]).root() == expected
    assert subtree_root(0, size, reader(PUBLISHED)) == expected


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_the_published_inclusion_proofs_come_out_and_verify(index: int, size: int, proof: list[str]) -> None:
    assert inclusion_proof(index, size, reader(PUBLISHED)) == hashes(proof)
    assert verify_inclusion(PUBLISHED[index], index, size, hashes(proof), bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_the_published_consistency_proofs_come_out_and_verify(old: int, new: int, proof: list[str]) -> None:
    assert consistency_proof(old, new, reader(PUBLISHED)) == hashes(proof)
    before, after = bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new])
    assert verify_consistency(old, before, new, after, hashes(proof))


def test_a_leaf_can_never_pass_for_a_node() -> None:
    left, right = PUBLISHED[0], PUBLISHED[1]
    assert leaf_hash(left + right) != node_hash(left, right)


# -- the tree -------------------------------------------------------------------------------------


def test_every_size_has_the_root_that_the_definition_gives() -> None:
    frontier = Frontier()
    for size in range(MOST):
        assert frontier.root() == defined_root(0, size)
        frontier = frontier.append(LEAVES[size])


@pytest.mark.parametrize("size", [0, 1, TILE - 1, TILE, TILE + 1, 2 * TILE, MOST])
def test_a_frontier_comes_back_from_its_dump_and_from_the_store(size: int) -> None:
    frontier = Frontier().append(*LEAVES[:size])
    assert Frontier.load(frontier.dump()) == frontier
    assert Frontier.read(size, reader(LEAVES)) == frontier
    assert Frontier.read(size, reader(LEAVES), reader(TILES)) == frontier


def test_appending_leaves_the_frontier_it_started_from_as_it_was() -> None:
    before = Frontier().append(*LEAVES[:5])
    before.append(*LEAVES[5:9])
    assert before.size == 5
    assert before.root() == defined_root(0, 5)


@pytest.mark.parametrize(
    "dumped",
    [
        b"",
        b"\x00" * 7,
        b"\x00" * 7 + b"\x01",
        b"\x00" * 7 + b"\x01" + b"h" * 31,
        b"\x00" * 7 + b"\x01" + b"h" * 33,
        b"\x00" * 7 + b"\x01" + b"h" * 64,
        b"\x00" * 7 + b"\x03" + b"h" * 32,
        b"\x00" * 8 + b"h" * 32,
    ],
)
def test_a_dump_whose_size_and_roots_disagree_is_refused(dumped: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        Frontier.load(dumped)


def test_a_frontier_cannot_be_made_with_roots_that_its_size_does_not_have() -> None:
    with pytest.raises(ValueError, match="expected a root for each bit set in size 3, got 1"):
        Frontier(3, (LEAVES[0],))


def test_a_line_is_not_taken_for_its_hash() -> None:
    with pytest.raises(ValueError, match="expected a hash of 32 bytes, got 7"):
        Frontier().append(b"a line!")


def test_a_store_that_lacks_leaves_gives_no_proof() -> None:
    with pytest.raises(ValueError, match="expected 256 hashes from number 512, got 0"):
        inclusion_proof(0, MOST, reader(LEAVES[: 2 * TILE]))


def test_a_store_that_lacks_tiles_gives_no_proof() -> None:
    with pytest.raises(ValueError, match="expected 3 hashes from number 0, got 2"):
        subtree_root(0, MOST, reader(LEAVES), reader(TILES[:2]))


def test_with_stored_tiles_a_proof_reads_less_than_two_tiles_of_leaves() -> None:
    count = []

    def counted(start: int, end: int) -> Sequence[bytes]:
        count.append(end - start)
        return LEAVES[start:end]

    assert inclusion_proof(300, MOST, counted, reader(TILES)) == inclusion_proof(300, MOST, reader(LEAVES))
    assert sum(count) < 2 * TILE


# -- inclusion ------------------------------------------------------------------------------------


@given(places())
def test_an_inclusion_proof_is_the_defined_one_and_verifies(place: tuple[int, int]) -> None:
    index, size = place
    proof = inclusion_proof(index, size, reader(LEAVES))
    assert proof == [beside for _, beside in defined_path(index, size)]
    assert proof == inclusion_proof(index, size, reader(LEAVES), reader(TILES))
    assert verify_inclusion(LEAVES[index], index, size, proof, defined_root(0, size))


@given(places(least=2), st.integers(0, 10_000), st.integers(0, 255))
def test_one_flipped_bit_in_proof_leaf_or_root_fails_inclusion(
    place: tuple[int, int], which: int, bit: int
) -> None:
    index, size = place
    proof, leaf, root = inclusion_proof(index, size, reader(LEAVES)), LEAVES[index], defined_root(0, size)
    at = which % len(proof)
    wrong = [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]
    assert not verify_inclusion(leaf, index, size, wrong, root)
    assert not verify_inclusion(flipped(leaf, bit), index, size, proof, root)
    assert not verify_inclusion(leaf, index, size, proof, flipped(root, bit))


@given(places(), st.integers(-2, MOST + 1))
def test_no_other_index_passes_with_the_same_proof(place: tuple[int, int], other: int) -> None:
    index, size = place
    proof = inclusion_proof(index, size, reader(LEAVES))
    if other != index:
        assert not verify_inclusion(LEAVES[index], other, size, proof, defined_root(0, size))


@given(places(), places())
@example((3, 4), (0, 1))
@example((0, 8), (0, 5))
def test_another_place_passes_only_where_the_way_to_the_root_is_the_same(
    place: tuple[int, int], other: tuple[int, int]
) -> None:
    """Size and root belong together: a proof alone cannot tell sizes of one shape apart."""
    index, size = place
    proof = inclusion_proof(index, size, reader(LEAVES))
    same = sides(defined_path(*other)) == sides(defined_path(index, size))
    assert verify_inclusion(LEAVES[index], *other, proof, defined_root(0, size)) == same


@given(places(), st.data())
def test_an_inclusion_proof_of_another_length_fails(place: tuple[int, int], data: st.DataObject) -> None:
    index, size = place
    leaf, root = LEAVES[index], defined_root(0, size)
    proof = inclusion_proof(index, size, reader(LEAVES))
    assert not verify_inclusion(leaf, index, size, [*proof, root], root)
    assert not verify_inclusion(leaf, index, size, [root, *proof], root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        assert not verify_inclusion(leaf, index, size, proof[:at] + proof[at + 1 :], root)


# -- consistency ----------------------------------------------------------------------------------


@given(growths())
def test_a_consistency_proof_is_the_defined_one_and_verifies(growth: tuple[int, int]) -> None:
    old, new = growth
    proof = consistency_proof(old, new, reader(LEAVES))
    assert proof == [beside for _, beside in defined_proof(old, new)]
    assert proof == consistency_proof(old, new, reader(LEAVES), reader(TILES))
    assert verify_consistency(old, defined_root(0, old), new, defined_root(0, new), proof)


@given(growths(), st.integers(0, 10_000), st.integers(0, 255))
def test_one_flipped_bit_in_proof_or_roots_fails_consistency(
    growth: tuple[int, int], which: int, bit: int
) -> None:
    old, new = growth
    before, after = defined_root(0, old), defined_root(0, new)
    proof = consistency_proof(old, new, reader(LEAVES))
    at = which % len(proof)
    wrong = [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]
    assert not verify_consistency(old, before, new, after, wrong)
    assert not verify_consistency(old, flipped(before, bit), new, after, proof)
    assert not verify_consistency(old, before, new, flipped(after, bit), proof)


@given(growths(), growths())
@example((7, 8), (3, 4))
@example((4, 8), (2, 4))
def test_other_sizes_pass_only_where_the_proof_has_the_same_shape(
    growth: tuple[int, int], others: tuple[int, int]
) -> None:
    old, new = growth
    proof = consistency_proof(old, new, reader(LEAVES))
    same = sides(defined_proof(*others)) == sides(defined_proof(old, new))
    before, after = defined_root(0, old), defined_root(0, new)
    assert verify_consistency(others[0], before, others[1], after, proof) == same


@given(growths(), st.data())
def test_a_consistency_proof_of_another_length_fails(growth: tuple[int, int], data: st.DataObject) -> None:
    old, new = growth
    before, after = defined_root(0, old), defined_root(0, new)
    proof = consistency_proof(old, new, reader(LEAVES))
    at = data.draw(st.integers(0, len(proof) - 1))
    assert not verify_consistency(old, before, new, after, [])
    assert not verify_consistency(old, before, new, after, [*proof, after])
    assert not verify_consistency(old, before, new, after, [before, *proof])
    assert not verify_consistency(old, before, new, after, proof[:at] + proof[at + 1 :])


@settings(max_examples=50)
@given(growths(), st.integers(0, MOST - 1))
def test_a_history_that_was_edited_is_never_consistent_with_what_was_promised(
    growth: tuple[int, int], edited: int
) -> None:
    old, new = growth
    at = edited % old
    forged = [*LEAVES[:at], leaf_hash(b"another entry"), *LEAVES[at + 1 :]]
    proof = consistency_proof(old, new, reader(forged))
    after = subtree_root(0, new, reader(forged))
    assert not verify_consistency(old, defined_root(0, old), new, after, proof)
    assert not verify_consistency(
        old, defined_root(0, old), new, after, consistency_proof(old, new, reader(LEAVES))
    )


def test_the_empty_tree_begins_every_tree_and_needs_no_proof() -> None:
    root = defined_root(0, 5)
    assert consistency_proof(0, 5, reader(LEAVES)) == []
    assert verify_consistency(0, EMPTY_ROOT, 5, root, [])
    assert verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    assert not verify_consistency(0, root, 5, root, [])
    assert not verify_consistency(0, EMPTY_ROOT, 0, root, [])
    assert not verify_consistency(0, EMPTY_ROOT, 5, root, [root])


def test_a_tree_begins_itself_and_nothing_else_of_its_size() -> None:
    root = defined_root(0, 5)
    assert consistency_proof(5, 5, reader(LEAVES)) == []
    assert verify_consistency(5, root, 5, root, [])
    assert not verify_consistency(5, root, 5, flipped(root, 0), [])
    assert not verify_consistency(5, root, 5, root, [root])


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5), (1, 0), (-2, -1)])
def test_sizes_that_cannot_be_give_neither_proof_nor_approval(old: int, new: int) -> None:
    root = defined_root(0, 5)
    assert not verify_consistency(old, root, new, root, [])
    with pytest.raises(ValueError, match="expected an old size"):
        consistency_proof(old, new, reader(LEAVES))


@pytest.mark.parametrize(("index", "size"), [(5, 5), (-1, 5), (0, 0), (0, -1)])
def test_a_leaf_outside_the_tree_gives_neither_proof_nor_approval(index: int, size: int) -> None:
    assert not verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])
    with pytest.raises(ValueError, match="expected an index"):
        inclusion_proof(index, size, reader(LEAVES))


def test_the_border_between_two_hashes_cannot_be_moved() -> None:
    left, right = LEAVES[:2]
    root = node_hash(left, right)
    assert node_hash(left + right[:1], right[1:]) == root
    assert not verify_inclusion(left + right[:1], 0, 2, [right[1:]], root)
    assert not verify_consistency(1, left + right[:1], 2, root, [right[1:]])


@given(
    st.integers(-3, 2**70), st.integers(-3, 2**70), st.lists(st.binary(max_size=33), max_size=80), st.binary()
)
def test_whatever_the_proof_holds_the_verifiers_say_no_and_do_not_raise(
    first: int, second: int, proof: list[bytes], short: bytes
) -> None:
    root = defined_root(0, 5)
    assert not verify_inclusion(short, first, second, proof, root)
    assert not verify_inclusion(root[::-1], first, second, proof, root)
    assert not verify_consistency(first, short, second, root, [*proof, short])
    assert not verify_consistency(first, root[::-1], second, root, [*proof, short])
