"""A value of each built-in type of OPC UA for the plant, and what a reading must hold of it: exact, with its type's name."""

import math
import uuid
from datetime import UTC, datetime
from typing import Any

from asyncua import ua

_AT = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)  # within the hour that summer time leaves out
_GUID = uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63")
_KIND = ua.VariantType

# name: (variant, value, type)
CASES: dict[str, tuple[Any, Any, str]] = {
    "Boolean": (ua.Variant(True, _KIND.Boolean), True, "Boolean"),
    "SByte": (ua.Variant(-128, _KIND.SByte), -128, "SByte"),
    "Byte": (ua.Variant(255, _KIND.Byte), 255, "Byte"),
    "Int16": (ua.Variant(-32768, _KIND.Int16), -32768, "Int16"),
    "UInt16": (ua.Variant(65535, _KIND.UInt16), 65535, "UInt16"),
    "Int32": (ua.Variant(-5, _KIND.Int32), -5, "Int32"),
    "UInt32": (ua.Variant(2**32 - 1, _KIND.UInt32), 2**32 - 1, "UInt32"),
    "Int64": (ua.Variant(-(2**63), _KIND.Int64), -(2**63), "Int64"),
    "UInt64": (ua.Variant(2**64 - 1, _KIND.UInt64), 2**64 - 1, "UInt64"),
    "Float": (ua.Variant(0.1, _KIND.Float), 0.10000000149011612, "Float"),
    "Double": (ua.Variant(5e-324, _KIND.Double), 5e-324, "Double"),
    "NaN": (ua.Variant(math.nan, _KIND.Double), math.nan, "Double"),
    "Infinity": (ua.Variant(-math.inf, _KIND.Float), -math.inf, "Float"),
    "Serial": (ua.Variant("00123", _KIND.String), "00123", "String"),
    "Exponent": (ua.Variant("1E5", _KIND.String), "1E5", "String"),
    "Umlaut": (ua.Variant("Grüße, 東京 \U0001f3ed", _KIND.String), "Grüße, 東京 \U0001f3ed", "String"),
    "Empty": (ua.Variant("", _KIND.String), "", "String"),
    "DateTime": (ua.Variant(_AT, _KIND.DateTime), "2026-03-29T01:30:00.123456Z", "DateTime"),
    "Guid": (ua.Variant(_GUID, _KIND.Guid), str(_GUID), "Guid"),
    "ByteString": (ua.Variant(b"\x00\xff", _KIND.ByteString), "00ff", "ByteString"),
    "XmlElement": (ua.Variant(ua.XmlElement("<a/>"), _KIND.XmlElement), "<a/>", "XmlElement"),
    "NodeId": (ua.Variant(ua.NodeId("Line1", 2), _KIND.NodeId), "nsu=http://plant.example/line1;s=Line1", "NodeId"),
    "ExpandedNodeId": (
        ua.Variant(
            ua.ExpandedNodeId("Line1", 0, ua.NodeIdType.String, NamespaceUri="http://else.example", ServerIndex=0), _KIND.ExpandedNodeId
        ),
        "nsu=http://else.example;s=Line1",
        "ExpandedNodeId",
    ),
    "StatusCode": (ua.Variant(ua.StatusCode(0x80340000), _KIND.StatusCode), 0x80340000, "StatusCode"),
    "QualifiedName": (ua.Variant(ua.QualifiedName("Press", 2), _KIND.QualifiedName), "http://plant.example/line1:Press", "QualifiedName"),
    "LocalizedText": (ua.Variant(ua.LocalizedText("Läuft", "de"), _KIND.LocalizedText), "Läuft", "LocalizedText"),
    "Structure": (
        ua.Variant(ua.Range(Low=-1.5, High=2.0), _KIND.ExtensionObject),
        '{"Low":-1.5,"High":2.0}',
        "ExtensionObject:Range",
    ),
    "Int32s": (ua.Variant([1, -2, 3], _KIND.Int32), "[1,-2,3]", "Int32[]"),
    "Texts": (ua.Variant(["00123", "1E5", ""], _KIND.String), '["00123","1E5",""]', "String[]"),
    "Doubles": (ua.Variant([0.5, math.nan], _KIND.Double), '[0.5,"nan"]', "Double[]"),
    "Matrix": (ua.Variant([[1, 2, 3], [4, 5, 6]], _KIND.Int32, Dimensions=[2, 3], is_array=True), "[[1,2,3],[4,5,6]]", "Int32[2,3]"),
    "None": (ua.Variant(None, _KIND.String), None, "String"),
}
VALUES = {name: variant for name, (variant, _, _) in CASES.items()}
