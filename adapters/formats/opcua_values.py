"""OPC UA values as readings hold them: exact, with the name of their type. Works on the records of any client that names them as the standard does.

Numbers, booleans and texts stay what they are (a Float is the double of the same value); bytes are hex; times are RFC 3339; ids name their
namespace by its URI, because its index changes when the server is started again. Arrays ("Int32[]", "Int32[2,3]") and structures are JSON.
"""

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hub.intake.readings import Quality, Value

OVERFLOW = 0x0480  # info type "data value" with its overflow bit: the server's queue of this item was too short
_PLAIN = {"Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "XmlElement"}


def value_of(variant: Any, namespaces: Sequence[str]) -> tuple[Value, str]:
    """The value of a variant and the name of its type; (None, "Null") where there is none."""
    if variant is None or variant.VariantType is None:
        return None, "Null"
    kind, value = variant.VariantType.name, variant.Value
    if kind in _PLAIN and not variant.is_array:
        return (value.Value if kind == "XmlElement" and value is not None and not isinstance(value, str) else value), kind
    if variant.is_array:
        bounds = ",".join(map(str, variant.Dimensions)) if variant.Dimensions else ""
        return (None if value is None else _json(_array(value, kind, namespaces))), f"{kind}[{bounds}]"
    if value is None:
        return None, kind
    if kind == "ExtensionObject":
        kind = f"{kind}:{_structure_name(value, namespaces)}"
    said = _scalar(value, kind, namespaces)
    return (_json(said) if isinstance(said, (dict, list)) else said), kind


def quality_of(status: int) -> Quality:
    """Good, uncertain or bad by the two highest bits of a status code."""
    return ("good", "uncertain", "bad", "bad")[status >> 30 & 3]


def overflowed(status: int) -> bool:
    """Whether the server says that values before this one were dropped from its queue."""
    return status & 0x0C80 == OVERFLOW


def node_text(node: Any, namespaces: Sequence[str]) -> str:
    """A node id with its namespace by URI: "nsu=http://plant/;s=Press.State"; those of the standard's namespace have none."""
    index, uri = node.NamespaceIndex, getattr(node, "NamespaceUri", None)
    if not uri and index:
        uri = namespaces[index] if index < len(namespaces) else f"unknown:{index}"
    kind = {0: "i", 1: "i", 2: "i", 3: "s", 4: "g", 5: "b"}[int(node.NodeIdType) & 0x3F]
    identifier = node.Identifier.hex() if isinstance(node.Identifier, bytes) else node.Identifier
    return f"{f'nsu={uri};' if uri else ''}{kind}={'0x' if kind == 'b' else ''}{identifier}"


def _array(value: Any, kind: str, namespaces: Sequence[str]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_array(one, kind, namespaces) for one in value]
    return _scalar(value, kind, namespaces)


def _scalar(value: Any, kind: str, namespaces: Sequence[str]) -> Any:
    """Something that JSON has, of a value of a built-in type or a field of a structure."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat().removesuffix("+00:00") + "Z"
    if hasattr(value, "NodeIdType"):
        return node_text(value, namespaces)
    if hasattr(value, "VariantType"):
        inner, name = value_of(value, namespaces)
        return {"type": name, "value": inner}
    if hasattr(value, "SourceTimestamp"):
        inner, name = value_of(value.Value, namespaces)
        status = value.StatusCode.value if value.StatusCode is not None else 0
        at = _scalar(value.SourceTimestamp, "DateTime", namespaces)
        return {"type": name, "value": inner, "status": status, "at": at}
    if hasattr(value, "Locale") and hasattr(value, "Text"):
        return value.Text
    if hasattr(value, "NamespaceIndex") and hasattr(value, "Name"):
        index = value.NamespaceIndex
        uri = namespaces[index] if 0 < index < len(namespaces) else ""
        return f"{uri}:{value.Name}" if uri else value.Name
    if kind == "StatusCode":
        return value.value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value
    if isinstance(value, (list, tuple)):
        return [_scalar(one, "", namespaces) for one in value]
    return _structure(value, namespaces)


def _structure_name(value: Any, namespaces: Sequence[str]) -> str:
    return node_text(value.TypeId, namespaces) if hasattr(value, "Body") else type(value).__name__


def _structure(value: Any, namespaces: Sequence[str]) -> Any:
    if hasattr(value, "Body"):  # its type is not known here: its bytes are kept whole
        return value.Body.hex() if value.Body else ""
    if hasattr(value, "hex") and hasattr(value, "fields"):
        return str(value)  # a Guid
    names = getattr(value, "__dataclass_fields__", None)
    if names is None:
        return value.value if hasattr(value, "value") else str(value)
    return {name: _scalar(getattr(value, name), "", namespaces) for name in names if name not in ("TypeId", "Encoding", "data_type")}


def _json(said: Any) -> str:
    """JSON in which numbers that JSON has not are texts."""
    return json.dumps(_finite(said), ensure_ascii=False, separators=(",", ":"))


def _finite(said: Any) -> Any:
    if isinstance(said, float) and not math.isfinite(said):
        return repr(said)
    if isinstance(said, dict):
        return {name: _finite(one) for name, one in said.items()}
    return [_finite(one) for one in said] if isinstance(said, list) else said
