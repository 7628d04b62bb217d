"""The data types of Sparkplug B: how a value of each is held in the fields of a payload, both ways. Only `Refused` rises."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from events.errors import Refused

_Read = Callable[[str, Any], Any]
_Hold = Callable[[Any], tuple[str, Any]]
Known = Mapping["DataType", tuple[_Read, _Hold]]


class DataType(IntEnum):
    """The data types, by their numbers on the wire."""

    Unknown, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float, Double, Boolean, String, DateTime, Text = range(15)
    UUID, DataSet, Bytes, File, Template, PropertySet, PropertySetList = range(15, 22)
    Int8Array, Int16Array, Int32Array, Int64Array, UInt8Array, UInt16Array, UInt32Array, UInt64Array = range(22, 30)
    FloatArray, DoubleArray, BooleanArray, StringArray, DateTimeArray = range(30, 35)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A table: names and types of its columns, rows of cells in the same order (None where a cell holds nothing)."""

    columns: tuple[str, ...]
    types: tuple[DataType, ...]
    rows: tuple[tuple[Any, ...], ...]


def utf8(value: Any) -> str:
    if not isinstance(value, str):  # the package hands over bytes where they are no UTF-8
        raise Refused(f"the text {bytes(value[:40])!r} of the payload is not UTF-8")
    return value


def type_of(number: int) -> DataType:
    try:
        return DataType(number)
    except ValueError as error:
        raise Refused(f"there is no data type {number} in Sparkplug B") from error


def read(kind: DataType, held: tuple[str, Any], known: Known) -> Any:
    if kind not in known:
        raise Refused(f"{kind.name} cannot be the type of this value")
    try:
        return known[kind][0](*held)
    except (ValueError, struct.error) as error:
        raise Refused(f"what the payload holds in {held[0]} is no {kind.name} ({error})") from error


def held(kind: DataType, value: Any, known: Known) -> tuple[str, Any]:
    if kind not in known:
        raise Refused(f"{kind.name} cannot be the type of this value")
    try:
        return known[kind][1](value)
    except (ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise Refused(f"{str(value)[:80]!r} is no {kind.name} ({error})") from error


def written(kind: DataType, text: str) -> Any:
    """What a person wrote, as a value of the type: texts as they stand, all else as JSON writes it (true, -5, 2.5, [1, 2], null for none)."""
    if kind in (DataType.String, DataType.Text, DataType.UUID):
        return text
    try:
        value = json.loads(text)
        return float(value) if kind in (DataType.Float, DataType.Double) and type(value) is int else value
    except (ValueError, OverflowError, RecursionError) as error:
        raise Refused(f"{text[:80]!r} is no {kind.name} ({error})") from error


def _whole(bits: int, *, signed: bool) -> tuple[_Read, _Hold]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    wide = 64 if bits == 64 else 32  # of the field; encoders write -1 of an Int8 as 0xff, as 0xffffffff or in the long field

    def read(which: str, value: Any) -> int:
        if which not in ("int_value", "long_value"):
            raise ValueError("another field was expected")
        for width in (bits, wide, 64) if signed else ():
            if value >> width == 0 and value >> width - 1 == 1 and value - (1 << width) >= low:
                return int(value - (1 << width))
        if not low <= value <= high:
            raise ValueError(f"{value} is out of its range")
        return int(value)

    def hold(value: Any) -> tuple[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"it goes from {low} to {high}")
        return ("long_value" if bits == 64 else "int_value"), value & ((1 << wide) - 1)

    return read, hold


def _of(field_: str, kind: type, said: Callable[[Any], Any] = lambda value: value) -> tuple[_Read, _Hold]:
    def read(which: str, value: Any) -> Any:
        if which != field_:
            raise ValueError("another field was expected")
        return utf8(value) if kind is str else value

    def hold(value: Any) -> tuple[str, Any]:
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"a {kind.__name__} was expected")
        return field_, said(value)

    return read, hold


def _single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])  # the nearest that a Float can hold


def _array(code: str) -> tuple[_Read, _Hold]:
    size = struct.calcsize(code)

    def read(which: str, value: Any) -> list[Any]:
        if which != "bytes_value" or len(value) % size:
            raise ValueError(f"{size} bytes an element were expected")
        return [one for (one,) in struct.iter_unpack(f"<{code}", value)]

    def hold(value: Any) -> tuple[str, Any]:
        if any(isinstance(one, bool) for one in value):
            raise ValueError("a number was expected")
        return "bytes_value", b"".join(struct.pack(f"<{code}", one) for one in value)

    return read, hold


def _read_bits(which: str, value: Any) -> list[bool]:
    if which != "bytes_value" or len(value) < 4:
        raise ValueError("a count of 4 bytes was expected")
    (count,) = struct.unpack_from("<I", value)
    if len(value) != 4 + (count + 7) // 8:
        raise ValueError(f"{count} bits do not fit {len(value) - 4} bytes")
    return [bool(value[4 + n // 8] & (0x80 >> n % 8)) for n in range(count)]


def _hold_bits(value: Any) -> tuple[str, Any]:
    if not all(isinstance(one, bool) for one in value):
        raise ValueError("a bool was expected")
    packed = bytearray((len(value) + 7) // 8)
    for n, one in enumerate(value):
        packed[n // 8] |= (0x80 >> n % 8) if one else 0
    return "bytes_value", struct.pack("<I", len(value)) + bytes(packed)


def _read_texts(which: str, value: Any) -> list[str]:
    if which != "bytes_value" or (value and not value.endswith(b"\x00")):
        raise ValueError("texts that each end in a null byte were expected")
    return [one.decode("utf-8") for one in value.split(b"\x00")[:-1]]


def _hold_texts(value: Any) -> tuple[str, Any]:
    if any("\x00" in one for one in value):
        raise ValueError("a text of it holds a null byte, which ends it on the wire")
    return "bytes_value", b"".join(one.encode("utf-8") + b"\x00" for one in value)


_T = DataType
_TEXT = _of("string_value", str)
SIMPLE: Known = {
    **{_T(n): _whole(8 << n - 1, signed=True) for n in range(1, 5)},
    **{_T(n): _whole(8 << n - 5, signed=False) for n in range(5, 9)},
    _T.Float: _of("float_value", float, _single),
    _T.Double: _of("double_value", float),
    _T.Boolean: _of("boolean_value", bool),
    _T.String: _TEXT,
    _T.DateTime: _whole(64, signed=True),
    _T.Text: _TEXT,
}
ALL: Known = {
    **SIMPLE,
    _T.UUID: _TEXT,
    _T.DataSet: _of("dataset_value", DataSet),
    _T.Bytes: _of("bytes_value", bytes),
    _T.File: _of("bytes_value", bytes),
    **{_T(22 + n): _array(code) for n, code in enumerate("bhiqBHIQfd")},
    _T.BooleanArray: (_read_bits, _hold_bits),
    _T.StringArray: (_read_texts, _hold_texts),
    _T.DateTimeArray: _array("q"),
}
