"""The instructions that metering adds, as bytes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from gstd.sandbox.metering.opcodes import F32X4, F64X2
from gstd.sandbox.sections import F32, F64, V128

HOST_FAULT: Final = -(1 << 63)
"""Fuel of an instance whose engine refused memory or a table that the module may have."""

_IF, _END, _UNREACHABLE, _ELSE = b"\x04\x40", b"\x0b", b"\x00", b"\x05"
_I32_SUB, _I32_ADD, _I32_LT_S, _I32_GT_U, _I32_EQ = b"\x6b", b"\x6a", b"\x48", b"\x4b", b"\x46"
_I64_SUB, _I64_LT_S, _EXTEND_U = b"\x7d", b"\x53", b"\xad"
I64_SHL, I64_SHR_U = b"\x86", b"\x88"
MEMORY_SIZE = b"\x3f\x00"

NAN_LOCALS: Final = {"f": F32, "F": F64, F32X4: V128, F64X2: V128}
_NAN32, _NAN64 = b"\x00\x00\xc0\x7f", b"\x00\x00\x00\x00\x00\x00\xf8\x7f"
_CANONICAL: Final = {
    "f": (b"\x43" + _NAN32, b"\x5b\x1b"),  # f32.const nan; f32.eq, select
    "F": (b"\x44" + _NAN64, b"\x61\x1b"),
    F32X4: (b"\xfd\x0c" + _NAN32 * 4, b"\xfd\x41\xfd\x52"),  # f32x4.eq, v128.bitselect
    F64X2: (b"\xfd\x0c" + _NAN64 * 2, b"\xfd\x47\xfd\x52"),
}


def u32(value: int) -> bytes:
    """An unsigned LEB128, shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """A signed LEB128, shortest form."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def i32_const(value: int) -> bytes:
    """``i32.const``."""
    return b"\x41" + signed(value)


def i64_const(value: int) -> bytes:
    """``i64.const``."""
    return b"\x42" + signed(value)


def get_local(index: int) -> bytes:
    """``local.get``."""
    return b"\x20" + u32(index)


def set_local(index: int) -> bytes:
    """``local.set``."""
    return b"\x21" + u32(index)


def tee_local(index: int) -> bytes:
    """``local.tee``."""
    return b"\x22" + u32(index)


def get_global(index: int) -> bytes:
    """``global.get``."""
    return b"\x23" + u32(index)


def set_global(index: int) -> bytes:
    """``global.set``."""
    return b"\x24" + u32(index)


@lru_cache(maxsize=1 << 16)
def charge(cost: int, local: int, fuel: int, spill: bool) -> bytes:
    """Take ``cost`` from the fuel in ``local``; store it in the global ``fuel`` if asked to, and
    before the trap if it is below zero."""
    take = get_local(local) + i64_const(cost) + _I64_SUB + tee_local(local)
    store = set_global(fuel)
    if spill:
        take += store + get_local(local)
        store = b""
    else:
        store = get_local(local) + store
    return take + i64_const(0) + _I64_LT_S + _IF + store + _UNREACHABLE + _END


def charge_operand(operand: int, scale: bytes, local: int, fuel: int) -> bytes:
    """Take the unsigned i32 in the local ``operand``, scaled, from the fuel; store it always."""
    take = get_local(local) + get_local(operand) + _EXTEND_U + scale + _I64_SUB
    store = tee_local(local) + set_global(fuel) + get_local(local)
    return take + store + i64_const(0) + _I64_LT_S + _IF + _UNREACHABLE + _END


def scaled(shift: int, operation: bytes) -> bytes:
    """Shift the i64 on top of the stack."""
    return i64_const(shift) + operation


def grow(
    instruction: bytes, size: bytes, maximum: int, count: int, value: int | None, costs: bytes
) -> bytes:
    """A ``grow`` that answers -1 by itself above ``maximum`` and blames the host for any other -1.

    ``count`` is the local of the operand, ``value`` that of the reference a table is filled with.
    ``costs`` charges for the growth.
    """
    save = set_local(count) + (b"" if value is None else set_local(value))
    room = i32_const(maximum) + size + _I32_SUB
    return (
        save
        + (get_local(count) + room + _I32_GT_U)
        + (b"\x04\x7f" + i32_const(-1) + _ELSE + costs)
        + (b"" if value is None else get_local(value))
        + (get_local(count) + instruction + tee_local(count))
        + (i32_const(-1) + _I32_EQ + _IF)
    )


def grow_end(count: int, fuel: int) -> bytes:
    """What follows ``grow``: the host's fault, or the old size."""
    fault = i64_const(HOST_FAULT) + set_global(fuel) + _UNREACHABLE + _END
    return fault + get_local(count) + _END


def canonical(shape: str, local: int) -> bytes:
    """Replace any NaN on top of the stack by the positive quiet one without payload."""
    nan, choose = _CANONICAL[shape]
    return tee_local(local) + nan + get_local(local) + get_local(local) + choose


def enter(depth: int, words: int) -> bytes:
    """Take ``words`` from the depth and trap below zero."""
    take = get_global(depth) + i32_const(words) + _I32_SUB + set_global(depth)
    return take + get_global(depth) + i32_const(0) + _I32_LT_S + _IF + _UNREACHABLE + _END


def leave(depth: int, words: int) -> bytes:
    """Give ``words`` back to the depth."""
    return get_global(depth) + i32_const(words) + _I32_ADD + set_global(depth)
