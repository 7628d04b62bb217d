"""The layout of a Sparkplug B payload on the wire (Protocol Buffers, proto2), as a table; the `protobuf` package reads and writes by it.

The numbers and names are those of the Sparkplug 3.0 specification, chapter 6.4.1; no file of the Eclipse projects is copied and no code generated. A
template is left as bytes: it is refused by name and not taken apart. What is not in the table (extensions) is skipped, as Protocol Buffers wants it.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

_PACKAGE = "millwright.sparkplug"
_VALUE = "int_value:{0}:uint32 long_value:{1}:uint64 float_value:{2}:float double_value:{3}:double boolean_value:{4}:bool string_value:{5}:string"

# message: its fields as name:number:type, a message's name with a capital, + repeated, | one of the value's alternatives
_MESSAGES = {
    "Payload": "timestamp:1:uint64 metrics:2:+Metric seq:3:uint64 uuid:4:string body:5:bytes",
    "Metric": "name:1:string alias:2:uint64 timestamp:3:uint64 datatype:4:uint32 is_historical:5:bool is_transient:6:bool is_null:7:bool "
    "metadata:8:MetaData properties:9:PropertySet | "
    + _VALUE.format(*range(10, 16))
    + " bytes_value:16:bytes dataset_value:17:DataSet template_value:18:bytes",
    "MetaData": "is_multi_part:1:bool content_type:2:string size:3:uint64 seq:4:uint64 file_name:5:string file_type:6:string md5:7:string "
    "description:8:string",
    "PropertySet": "keys:1:+string values:2:+PropertyValue",
    "PropertySetList": "propertyset:1:+PropertySet",
    "PropertyValue": "type:1:uint32 is_null:2:bool | " + _VALUE.format(*range(3, 9)) + " propertyset_value:9:PropertySet propertysets_value:10:PropertySetList",
    "DataSet": "num_of_columns:1:uint64 columns:2:+string types:3:+uint32 rows:4:+Row",
    "Row": "elements:1:+Cell",
    "Cell": "| " + _VALUE.format(*range(1, 7)),
}  # fmt: skip


def _file() -> descriptor_pb2.FileDescriptorProto:
    described = descriptor_pb2.FileDescriptorProto(name="millwright/sparkplug.proto", package=_PACKAGE, syntax="proto2")
    for name, said in _MESSAGES.items():
        message, plain = described.message_type.add(name=name), True
        for word in said.split():
            if word == "|":
                plain = False
                message.oneof_decl.add(name="value")
                continue
            field, number, kind = word.split(":")
            added = message.field.add(name=field, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind.startswith("+"):
                added.label, kind = FieldDescriptorProto.LABEL_REPEATED, kind[1:]
            if kind[0].isupper():
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
            if not plain:
                added.oneof_index = 0
    return described


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
Payload: Any = message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))
