"""A reader of WebAssembly's binary format that trusts no length and no count.

Source of the format: the WebAssembly core specification 2.0, chapter 5 (binary format). Only what
decides about acceptance is read; instructions are left to the compiler's validation.
"""

from __future__ import annotations

from typing import Final, NoReturn

from gstd.sandbox.errors import ModuleLimitExceeded, ModuleMalformed, ModuleTruncated


def too_many(what: str, count: int, limit: int) -> NoReturn:
    """Refuse ``count`` of ``what``."""
    raise ModuleLimitExceeded(f"The module has {count} {what}; at most {limit} are accepted.")


class Reader:
    """Reads forward through ``data[start:end]`` and raises ``ModuleTruncated`` at its end."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data: Final = data
        self._end: Final = end
        self.position = start

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self._end - self.position

    def byte(self) -> int:
        """The next byte."""
        if self.position >= self._end:
            raise ModuleTruncated(f"The module ends at byte {self.position}, inside a value.")
        value = self._data[self.position]
        self.position += 1
        return value

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes."""
        if size > self.left:
            raise ModuleTruncated(
                f"Byte {self.position} promises {size} more bytes; only {self.left} follow."
            )
        self.position += size

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        start = self.position
        self.skip(size)
        return self._data[start : self.position]

    def part(self, size: int) -> Reader:
        """A reader of the next ``size`` bytes, which this one passes over."""
        start = self.position
        self.skip(size)
        return Reader(self._data, start, self.position)

    def u32(self) -> int:
        """An unsigned LEB128 of at most 32 bits in at most 5 bytes."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32:
                    break
                return value
        raise ModuleMalformed(f"The number before byte {self.position} does not fit 32 bits.")

    def skip_signed(self, bits: int) -> None:
        """Pass over a signed LEB128 of at most ``bits`` bits."""
        for _ in range((bits + 6) // 7):
            if self.byte() < 0x80:
                return
        raise ModuleMalformed(f"The number before byte {self.position} does not fit {bits} bits.")

    def count(self, what: str, limit: int) -> int:
        """How many items follow; each takes at least one byte."""
        value = self.u32()
        if value > limit:
            too_many(what, value, limit)
        if value > self.left:
            raise ModuleTruncated(f"The module promises {value} {what} but ends before them.")
        return value

    def name(self, limit: int) -> str:
        """A UTF-8 name of at most ``limit`` bytes."""
        size = self.u32()
        if size > limit:
            too_many("bytes in a name", size, limit)
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise ModuleMalformed(f"The name before byte {self.position} is not UTF-8.") from None

    def finish(self, what: str) -> None:
        """Refuse bytes that nothing accounts for."""
        if self.left:
            raise ModuleMalformed(f"{self.left} bytes are left over at the end of {what}.")
