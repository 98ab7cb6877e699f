"""The append-only Merkle tree of the audit log: RFC 9162, section 2.1, with SHA-256.

Sizes and indexes count leaves from 0; every hash is 32 raw bytes. Proofs are made from *tiles* as
in C2SP's tlog-tiles: tile ``(level, index)`` holds up to 256 neighbouring hashes of complete
subtrees of ``256**level`` leaves, one after the other. A tile only ever grows at its end, so the
tiles of a log also make every proof for any smaller size the log once had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

from gstd.kernel.errors import GstdError

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES
EMPTY_ROOT = sha256().digest()
"""The root of a log without leaves."""

Tile = tuple[int, int]
"""A tile's name: ``(level, index)``."""

Tiles = Mapping[Tile, bytes]
"""The content of the tiles a function was promised by its ``tiles_for_…``."""


class ProofError(GstdError):
    """The proof does not prove what it was given for."""

    code = "proof_invalid"
    status = 422
    hint = "Fetch the proof again; if it still fails, keep it: the log contradicts itself."


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf with this content: SHA-256 of 0x00 and the content."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 of 0x01 and the hashes of its two children."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: its root at any moment, in memory of log2(size) hashes."""

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[bytes] = []

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    def append(self, leaf: bytes) -> None:
        """Add the next leaf's hash."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add the hashes of the next leaves, in order."""
        size, pop, push = self._size, self._peaks.pop, self._peaks.append
        try:
            for leaf in leaves:
                node, carry = leaf, size
                # Like adding one in binary: every 1 at the end is a subtree that becomes complete.
                while carry & 1:
                    node = sha256(b"\x01" + pop() + node).digest()
                    carry >>= 1
                push(node)
                size += 1
        finally:  # the leaves may come from a generator that fails half way
            self._size = size

    def root(self) -> bytes:
        """The root over all leaves so far (RFC 9162, 2.1.1); ``EMPTY_ROOT`` before the first."""
        return _fold(self._peaks)


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion path leads to (RFC 9162, 2.1.3.2).

    A path has the same shape for several sizes: what binds the size is the signature over size
    and root. Raises ``ProofError`` for a leaf outside the tree or a path of the wrong length.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size} leaves")
    _check_hashes((leaf, *path))
    node, last = index, size - 1
    result = leaf
    for step in path:
        if last == 0:
            raise ProofError(f"the inclusion path has {len(path)} hashes, which is too many")
        if node & 1 or node == last:
            result = node_hash(step, result)
            node, last = _skip_missing(node, last)
        else:
            result = node_hash(result, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError(f"the inclusion path has {len(path)} hashes, which is too few")
    return result


def verify_inclusion(
    index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf hash stands at ``index`` of the tree with this size and root.

    Raises ``ProofError`` like ``root_from_inclusion``, and if the path leads to another root.
    """
    if root_from_inclusion(index, size, leaf, path) != root:
        raise ProofError(f"the path of leaf {index} leads to another root than the checkpoint's")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that the tree of size ``first`` is the beginning of the tree of size ``second``.

    RFC 9162, 2.1.4.2; equal sizes and an empty first tree, which the RFC leaves out, have the
    empty path. Raises ``ProofError`` that says which check failed.
    """
    if not 0 <= first <= second:
        raise ProofError(f"a tree of {first} leaves cannot be the beginning of one of {second}")
    _check_hashes((first_root, second_root, *path))
    if first in {0, second}:
        _verify_trivial(first, second, first_root, second_root, path)
        return
    if not path:
        raise ProofError("the consistency path is empty")
    old, new = _roots_from_consistency(first, second, first_root, path)
    if old != first_root:
        raise ProofError(f"the path leads to another root for the earlier {first} leaves")
    if new != second_root:
        raise ProofError(f"the path leads to another root for the later {second} leaves")


def _verify_trivial(
    first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    if path:
        raise ProofError(f"the consistency path from {first} to {second} leaves must be empty")
    if first == second and first_root != second_root:
        raise ProofError(f"two different roots for the same {first} leaves")
    if first == 0 and first_root != EMPTY_ROOT:
        raise ProofError("the earlier root is not the root of an empty tree")


def _roots_from_consistency(
    first: int, second: int, first_root: bytes, path: Sequence[bytes]
) -> tuple[bytes, bytes]:
    is_complete = first & (first - 1) == 0
    start, *rest = (first_root, *path) if is_complete else path
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = start
    for step in rest:
        if last == 0:
            raise ProofError(f"the consistency path has {len(path)} hashes, which is too many")
        if node & 1 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            node, last = _skip_missing(node, last)
        else:
            new = node_hash(new, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError(f"the consistency path has {len(path)} hashes, which is too few")
    return old, new


def _skip_missing(node: int, last: int) -> tuple[int, int]:
    """Climb the levels on which a node at the right edge has no sibling."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(each) != HASH_BYTES for each in hashes):
        raise ProofError(f"a hash in the proof does not have {HASH_BYTES} bytes")


def tiles_for_root(size: int) -> set[Tile]:
    """The tiles that ``root`` reads."""
    return _tiles_of([(0, size)])


def tiles_for_inclusion(index: int, size: int) -> set[Tile]:
    """The tiles that ``inclusion_path`` reads. Raises ``ValueError`` like it."""
    return _tiles_of(_inclusion_ranges(index, size))


def tiles_for_consistency(first: int, second: int) -> set[Tile]:
    """The tiles that ``consistency_path`` reads. Raises ``ValueError`` like it."""
    return _tiles_of(_consistency_ranges(first, second))


def tiles_for_append(size: int) -> set[Tile]:
    """The tiles that ``append`` reads: on every level the one that is begun and not full."""
    levels = _levels(size)
    return {(level, count // TILE_WIDTH) for level, count in levels if count % TILE_WIDTH}


def root(size: int, tiles: Tiles) -> bytes:
    """The root over the first ``size`` leaves. Raises ``LookupError`` for a tile too few."""
    return _hash_of((0, size), tiles)


def inclusion_path(index: int, size: int, tiles: Tiles) -> list[bytes]:
    """PATH(index, D[size]) of RFC 9162, 2.1.3.1, from the leaf's sibling up.

    Raises ``ValueError`` unless 0 <= index < size, ``LookupError`` for a missing or short tile.
    """
    return [_hash_of(each, tiles) for each in _inclusion_ranges(index, size)]


def consistency_path(first: int, second: int, tiles: Tiles) -> list[bytes]:
    """PROOF(first, D[second]) of RFC 9162, 2.1.4.1; empty for equal sizes and from size 0.

    Raises ``ValueError`` unless 0 <= first <= second, ``LookupError`` for a missing or short tile.
    """
    return [_hash_of(each, tiles) for each in _consistency_ranges(first, second)]


def append(size: int, leaves: Sequence[bytes], tiles: Tiles) -> dict[Tile, bytes]:
    """The tiles that are new or longer after these leaf hashes joined a log of ``size`` leaves.

    ``tiles`` holds what ``tiles_for_append(size)`` names. Raises ``LookupError`` if one of them
    does not end exactly at ``size``: appending there would fork the log. Raises ``ValueError``
    for a leaf hash that does not have 32 bytes.
    """
    if any(len(leaf) != HASH_BYTES for leaf in leaves):
        raise ValueError(f"a leaf hash must have {HASH_BYTES} bytes")
    changed: dict[Tile, bytes] = {}
    level, new = 0, b"".join(leaves)
    while new:
        first, width = divmod(size >> (TILE_HEIGHT * level), TILE_WIDTH)
        row = _begun_tile((level, first), width, tiles) + new
        grown = [row[at : at + TILE_BYTES] for at in range(0, len(row), TILE_BYTES)]
        changed.update(((level, first + at), tile) for at, tile in enumerate(grown))
        new = b"".join(_complete_root(tile) for tile in grown if len(tile) == TILE_BYTES)
        level += 1
    return changed


def _begun_tile(tile: Tile, width: int, tiles: Tiles) -> bytes:
    if width == 0:
        return b""
    hashes = tiles.get(tile, b"")
    if len(hashes) != width * HASH_BYTES:
        raise LookupError(f"tile {tile} has {len(hashes)} bytes instead of {width} hashes")
    return hashes


# Every proof is a list of ranges of leaves, and each range starts where a complete subtree at
# least as large as the range could start. So one plan says both which tiles are read and what is
# hashed.

Range = tuple[int, int]
"""Leaves from the first number up to and without the second."""


def _levels(size: int) -> Iterator[tuple[int, int]]:
    """Every level of tiles that has hashes, and how many."""
    level = 0
    while size:
        yield level, size
        level, size = level + 1, size >> TILE_HEIGHT


def _split(leaves: Range) -> int:
    """Where RFC 9162 divides a range: after the largest power of two below its length."""
    low, high = leaves
    return low + (1 << ((high - low - 1).bit_length() - 1))


def _inclusion_ranges(index: int, size: int) -> list[Range]:
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
    low, high = 0, size
    ranges: list[Range] = []
    while high - low > 1:
        middle = _split((low, high))
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return ranges[::-1]


def _consistency_ranges(first: int, second: int) -> list[Range]:
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {first} leaves cannot be the beginning of one of {second}")
    if first == 0:
        return []
    low, high = 0, second
    ranges: list[Range] = []
    while first < high:
        middle = _split((low, high))
        if first <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    if low:  # otherwise what remains is the whole first tree, whose root the verifier has
        ranges.append((low, high))
    return ranges[::-1]


def _subtrees(leaves: Range) -> Iterator[tuple[int, int]]:
    """Height and index of the complete subtrees of a range, from left to right."""
    low, high = leaves
    while low < high:
        height = (high - low).bit_length() - 1
        yield height, low >> height
        low += 1 << height


def _tile_of(height: int, index: int) -> tuple[Tile, slice]:
    """The tile with a complete subtree's hashes, and where in its bytes they stand."""
    level, rest = divmod(height, TILE_HEIGHT)
    tile, start = divmod(index << rest, TILE_WIDTH)
    return (level, tile), slice(start * HASH_BYTES, (start + (1 << rest)) * HASH_BYTES)


def _tiles_of(ranges: Iterable[Range]) -> set[Tile]:
    return {_tile_of(*subtree)[0] for leaves in ranges for subtree in _subtrees(leaves)}


def _hash_of(leaves: Range, tiles: Tiles) -> bytes:
    return _fold([_subtree_hash(height, index, tiles) for height, index in _subtrees(leaves)])


def _subtree_hash(height: int, index: int, tiles: Tiles) -> bytes:
    tile, where = _tile_of(height, index)
    hashes = tiles.get(tile, b"")[where]
    if len(hashes) != where.stop - where.start:
        raise LookupError(f"tile {tile} is missing or ends before byte {where.stop}")
    return _complete_root(hashes)


def _complete_root(row: bytes) -> bytes:
    """Root of a complete subtree over a power of two of neighbouring hashes."""
    pair = 2 * HASH_BYTES
    while len(row) > HASH_BYTES:
        row = b"".join(
            sha256(b"\x01" + row[at : at + pair]).digest() for at in range(0, len(row), pair)
        )
    return row


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Root over neighbouring complete subtrees, the largest first."""
    if not peaks:
        return EMPTY_ROOT
    result = peaks[-1]
    for left in reversed(peaks[:-1]):
        result = node_hash(left, result)
    return result
