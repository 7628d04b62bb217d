"""OPC UA in: a `ReadingSource` for one server (asyncua). `source` holds the promises, `line` the connection, `browse` what there is."""

from adapters.opcua.settings import OpcUaSettings, Sequence, Start
from adapters.opcua.source import OpcUaSource

__all__ = ["OpcUaSettings", "OpcUaSource", "Sequence", "Start"]
