"""The Merkle tree against the RFC's own definitions, its published vectors, and every forgery."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gstd.protocol import merkle
from gstd.protocol.merkle import EMPTY_ROOT, Frontier, ProofError, Tile, leaf_hash

# The eight leaves, roots and paths of the Certificate Transparency reference implementation.
SIXTEEN = "606162636465666768696a6b6c6d6e6f"
REFERENCE_INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", SIXTEEN)
REFERENCE_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
N_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
N_2_3 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N_0_3 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
N_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
N_4_5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
N_6 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
N_6_7 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N_4_7 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
REFERENCE_LEAVES = [leaf_hash(bytes.fromhex(each)) for each in REFERENCE_INPUTS]

LEAVES = [leaf_hash(number.to_bytes(8, "big")) for number in range(65_536 + 300)]
SIZES = st.one_of(st.integers(1, 600), st.sampled_from([1, 2, 255, 256, 257, 511, 512, 513]))


# The definitions of RFC 9162, 2.1.1, 2.1.3.1 and 2.1.4.1, word for word.


def split(size: int) -> int:
    half = 1
    while half * 2 < size:
        half *= 2
    return half


@cache
def mth(low: int, high: int) -> bytes:
    if high == low:
        return hashlib.sha256(b"").digest()
    if high - low == 1:
        return LEAVES[low]
    k = split(high - low)
    both = mth(low, low + k) + mth(low + k, high)
    return hashlib.sha256(b"\x01" + both).digest()


def path_of(index: int, low: int, high: int) -> list[bytes]:
    if high - low == 1:
        return []
    k = split(high - low)
    if index < k:
        return [*path_of(index, low, low + k), mth(low + k, high)]
    return [*path_of(index - k, low + k, high), mth(low, low + k)]


def subproof(first: int, low: int, high: int, *, is_known: bool) -> list[bytes]:
    if first == high - low:
        return [] if is_known else [mth(low, high)]
    k = split(high - low)
    if first <= k:
        return [*subproof(first, low, low + k, is_known=is_known), mth(low + k, high)]
    return [*subproof(first - k, low + k, high, is_known=False), mth(low, low + k)]


def proof_of(first: int, second: int) -> list[bytes]:
    return subproof(first, 0, second, is_known=True) if first else []


def shape(index: int, size: int) -> str:
    """Which sides the siblings of an inclusion path stand on: all that verifying depends on."""
    if size == 1:
        return ""
    k = split(size)
    return shape(index, k) + "R" if index < k else shape(index - k, size - k) + "L"


def growth_shape(first: int, size: int, *, is_known: bool = True) -> str:
    """The same for a consistency path, with where it starts."""
    if first == size:
        return "known" if is_known else "given"
    k = split(size)
    if first <= k:
        return growth_shape(first, k, is_known=is_known) + "R"
    return growth_shape(first - k, size - k, is_known=False) + "L"


def grow(*chunks: Sequence[bytes]) -> dict[Tile, bytes]:
    """The tiles after the chunks, each append given nothing but the tiles it asked for."""
    tiles: dict[Tile, bytes] = {}
    size = 0
    for chunk in chunks:
        tiles |= merkle.append(size, chunk, only(tiles, merkle.tiles_for_append(size)))
        size += len(chunk)
    return tiles


def only(tiles: dict[Tile, bytes], names: set[Tile]) -> dict[Tile, bytes]:
    return {name: tiles[name] for name in names}


TILES = grow(LEAVES)


def made_path(index: int, size: int, tiles: dict[Tile, bytes]) -> list[bytes]:
    """The inclusion path from nothing but the tiles it asks for."""
    names = merkle.tiles_for_inclusion(index, size)
    return merkle.inclusion_path(index, size, only(tiles, names))


def made_proof(first: int, second: int, tiles: dict[Tile, bytes]) -> list[bytes]:
    """The consistency path from nothing but the tiles it asks for."""
    names = merkle.tiles_for_consistency(first, second)
    return merkle.consistency_path(first, second, only(tiles, names))


def flips(data: bytes) -> list[bytes]:
    """Everything that differs from ``data`` in a single bit."""
    number = int.from_bytes(data, "big")
    return [(number ^ (1 << bit)).to_bytes(len(data), "big") for bit in range(8 * len(data))]


def is_refused(check: Callable[..., None], *claim: object) -> bool:
    try:
        check(*claim)
    except ProofError:
        return True
    return False


def test_the_reference_roots_are_reproduced() -> None:
    frontier = Frontier()
    tiles: dict[Tile, bytes] = {}
    assert frontier.root() == EMPTY_ROOT == bytes.fromhex(REFERENCE_ROOTS[0])
    for size, leaf in enumerate(REFERENCE_LEAVES, 1):
        frontier.append(leaf)
        tiles |= merkle.append(size - 1, [leaf], tiles)
        assert frontier.size == size
        assert frontier.root().hex() == merkle.root(size, tiles).hex() == REFERENCE_ROOTS[size]


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, [N_1, N_2_3, N_4_7]),
        (5, 8, [N_4, N_6_7, N_0_3]),
        (1, 5, [REFERENCE_ROOTS[1], N_2_3, N_4]),
    ],
)
def test_the_reference_inclusion_paths_are_reproduced(
    index: int, size: int, path: list[str]
) -> None:
    tiles = merkle.append(0, REFERENCE_LEAVES, {})
    made = merkle.inclusion_path(index, size, tiles)
    assert [each.hex() for each in made] == path
    root = bytes.fromhex(REFERENCE_ROOTS[size])
    merkle.verify_inclusion(index, size, REFERENCE_LEAVES[index], made, root)


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        (1, 1, []),
        (1, 8, [N_1, N_2_3, N_4_7]),
        (2, 5, [N_2_3, N_4]),
        (6, 7, [N_4_5, N_6, N_0_3]),
        (6, 8, [N_4_5, N_6_7, N_0_3]),
    ],
)
def test_the_reference_consistency_paths_are_reproduced(
    first: int, second: int, path: list[str]
) -> None:
    tiles = merkle.append(0, REFERENCE_LEAVES, {})
    made = merkle.consistency_path(first, second, tiles)
    assert [each.hex() for each in made] == path
    old, new = bytes.fromhex(REFERENCE_ROOTS[first]), bytes.fromhex(REFERENCE_ROOTS[second])
    merkle.verify_consistency(first, second, old, new, made)


def test_every_small_size_has_the_root_of_the_definition() -> None:
    frontier = Frontier()
    for size in range(601):
        assert frontier.root() == mth(0, size) == merkle.root(size, TILES)
        frontier.append(LEAVES[size])


def test_a_source_that_fails_half_way_leaves_a_usable_frontier() -> None:
    def leaves() -> Iterator[bytes]:
        yield from LEAVES[:5]
        raise TimeoutError

    frontier = Frontier()
    with pytest.raises(TimeoutError):
        frontier.extend(leaves())
    assert (frontier.size, frontier.root()) == (5, mth(0, 5))
    frontier.extend(LEAVES[5:400])
    assert (frontier.size, frontier.root()) == (400, mth(0, 400))


@given(size=SIZES, data=st.data())
def test_inclusion_paths_from_later_tiles_are_those_of_the_definition(
    size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = made_path(index, size, TILES)
    assert path == path_of(index, 0, size)
    merkle.verify_inclusion(index, size, LEAVES[index], path, mth(0, size))


@given(second=SIZES, data=st.data())
def test_consistency_paths_from_later_tiles_are_those_of_the_definition(
    second: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, second))
    path = made_proof(first, second, TILES)
    assert path == proof_of(first, second)
    merkle.verify_consistency(first, second, mth(0, first), mth(0, second), path)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 65_536 + 256, 65_536 + 299])
def test_the_third_level_of_tiles(size: int) -> None:
    frontier = Frontier()
    frontier.extend(LEAVES[:size])
    tiles = grow(LEAVES[:65_000], LEAVES[65_000:65_530], LEAVES[65_530:size])
    assert ((2, 0) in tiles) == (size >= 65_536)
    read = only(tiles, merkle.tiles_for_root(size))
    assert merkle.root(size, read) == frontier.root() == mth(0, size)
    for index in (0, 255, 256, 65_279, 65_534, size - 1):
        path = made_path(index, size, tiles)
        assert path == path_of(index, 0, size)
        merkle.verify_inclusion(index, size, LEAVES[index], path, frontier.root())
    for first in (1, 256, 65_280, 65_534, size - 1):
        path = made_proof(first, size, tiles)
        assert path == proof_of(first, size)
        merkle.verify_consistency(first, size, mth(0, first), frontier.root(), path)


@given(cuts=st.lists(st.integers(0, 1200), max_size=8), size=st.integers(0, 1200))
def test_tiles_do_not_depend_on_how_leaves_arrived(cuts: list[int], size: int) -> None:
    stops = [0, *sorted(cut for cut in cuts if cut < size), size]
    tiles = grow(*(LEAVES[low:high] for low, high in pairwise(stops)))
    expected = {
        (0, at // 256): b"".join(LEAVES[at : min(at + 256, size)]) for at in range(0, size, 256)
    }
    if size >= 256:
        expected[1, 0] = b"".join(mth(at, at + 256) for at in range(0, size - 255, 256))
    assert tiles == expected


@given(start=st.integers(0, 1200), count=st.integers(0, 600))
def test_append_returns_what_changed_and_nothing_else(start: int, count: int) -> None:
    before = grow(LEAVES[:start])
    after = grow(LEAVES[: start + count])
    right_edge = only(before, merkle.tiles_for_append(start))
    changed = merkle.append(start, LEAVES[start : start + count], right_edge)
    assert changed == {name: tile for name, tile in after.items() if before.get(name) != tile}
    assert all(tile.startswith(before.get(name, b"")) for name, tile in after.items())


def test_appending_to_tiles_of_another_size_is_refused() -> None:
    tiles = grow(LEAVES[:300])
    for size in (299, 301, 44 + 256 * 2):
        with pytest.raises(LookupError):
            merkle.append(size, LEAVES[:1], tiles)
    with pytest.raises(ValueError, match="32 bytes"):
        merkle.append(300, [b"short"], tiles)


def test_proofs_need_all_their_tiles() -> None:
    tiles = grow(LEAVES[:600])
    for names, make in (
        (merkle.tiles_for_root(600), lambda some: merkle.root(600, some)),
        (merkle.tiles_for_inclusion(300, 600), lambda s: merkle.inclusion_path(300, 600, s)),
        (merkle.tiles_for_consistency(300, 600), lambda s: merkle.consistency_path(300, 600, s)),
    ):
        assert names
        make(only(tiles, names))
        for name in names:
            with pytest.raises(LookupError):
                make(only(tiles, names - {name}))
    with pytest.raises(LookupError):
        merkle.root(601, tiles)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0), (6, 5)])
def test_no_inclusion_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        merkle.tiles_for_inclusion(index, size)
    with pytest.raises(ProofError, match="is not in a tree"):
        merkle.root_from_inclusion(index, size, LEAVES[0], [])


@pytest.mark.parametrize(("first", "second"), [(-1, 5), (6, 5)])
def test_no_consistency_backwards(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="cannot be the beginning"):
        merkle.tiles_for_consistency(first, second)
    with pytest.raises(ProofError, match="cannot be the beginning"):
        merkle.verify_consistency(first, second, mth(0, 1), mth(0, 5), [])


@given(size=st.integers(1, 300), data=st.data())
@settings(max_examples=25)
def test_every_flipped_bit_breaks_an_inclusion_proof(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, path, root = LEAVES[index], path_of(index, 0, size), mth(0, size)
    refused = partial(is_refused, merkle.verify_inclusion)
    assert not refused(index, size, leaf, path, root)
    assert all(refused(index, size, other, path, root) for other in flips(leaf))
    assert all(refused(index, size, leaf, path, other) for other in flips(root))
    for at, step in enumerate(path):
        for other in flips(step):
            assert refused(index, size, leaf, [*path[:at], other, *path[at + 1 :]], root)
    for bit in range(12):
        assert refused(index ^ 1 << bit, size, leaf, path, root)
    # A path alone cannot tell sizes apart in which it has the same shape; the signature does.
    for changed in (size ^ 1 << bit for bit in range(12)):
        same = index < changed and shape(index, changed) == shape(index, size)
        assert refused(index, changed, leaf, path, root) != same


@given(second=st.integers(2, 300), data=st.data())
@settings(max_examples=25)
def test_every_flipped_bit_breaks_a_consistency_proof(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second - 1))
    old, new, path = mth(0, first), mth(0, second), proof_of(first, second)
    refused = partial(is_refused, merkle.verify_consistency)
    assert not refused(first, second, old, new, path)
    assert all(refused(first, second, other, new, path) for other in flips(old))
    assert all(refused(first, second, old, other, path) for other in flips(new))
    for at, step in enumerate(path):
        for other in flips(step):
            assert refused(first, second, old, new, [*path[:at], other, *path[at + 1 :]])
    right = growth_shape(first, second)
    sizes = [(first ^ 1 << bit, second) for bit in range(12)]
    for m, n in sizes + [(first, second ^ 1 << bit) for bit in range(12)]:
        same = 0 < m < n and growth_shape(m, n) == right
        assert refused(m, n, old, new, path) != same


@given(size=st.integers(1, 600), data=st.data())
def test_paths_of_another_length_are_refused_by_name(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = path_of(index, 0, size)
    with pytest.raises(ProofError, match="too many"):
        merkle.root_from_inclusion(index, size, LEAVES[index], [*path, LEAVES[0]])
    if path:
        with pytest.raises(ProofError, match="too few"):
            merkle.root_from_inclusion(index, size, LEAVES[index], path[:-1])
        with pytest.raises(ProofError, match="32 bytes"):
            merkle.root_from_inclusion(index, size, LEAVES[index], [*path[:-1], path[-1] + b"\0"])
    first = data.draw(st.integers(1, size))
    old, new, growth = mth(0, first), mth(0, size), proof_of(first, size)
    words = "must be empty" if first == size else "too many"
    with pytest.raises(ProofError, match=words):
        merkle.verify_consistency(first, size, old, new, [*growth, LEAVES[0]])
    if growth:
        with pytest.raises(ProofError, match=r"too few|is empty"):
            merkle.verify_consistency(first, size, old, new, growth[:-1])


def test_equal_sizes_and_the_empty_tree() -> None:
    root = mth(0, 5)
    merkle.verify_consistency(5, 5, root, root, [])
    merkle.verify_consistency(0, 5, EMPTY_ROOT, root, [])
    merkle.verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    with pytest.raises(ProofError, match="two different roots"):
        merkle.verify_consistency(5, 5, root, mth(0, 6), [])
    with pytest.raises(ProofError, match="root of an empty tree"):
        merkle.verify_consistency(0, 5, root, root, [])
    with pytest.raises(ProofError, match="must be empty"):
        merkle.verify_consistency(0, 5, EMPTY_ROOT, root, [root])


def test_consistency_says_which_root_is_wrong() -> None:
    path = proof_of(3, 7)
    with pytest.raises(ProofError, match="earlier 3"):
        merkle.verify_consistency(3, 7, mth(0, 4), mth(0, 7), path)
    with pytest.raises(ProofError, match="later 7"):
        merkle.verify_consistency(3, 7, mth(0, 3), mth(0, 8), path)
