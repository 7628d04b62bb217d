"""Sparkplug B 3.0 host application: what edge nodes and their devices say, as readings; STATE, rebirths and commands on the way back.

It keeps to the specification (docs/sparkplug.md): connect with a STATE will, subscribe, publish STATE, all with a clean session. So a broker keeps nothing
for us while we are away; what was missed is told as a gap, and filled by nodes that store and forward. What one edge node says and means is
adapters/formats/sparkplug_node.py; here are the brokers (broker.py) and the host between (source.py).
"""

from adapters.sparkplug.settings import SparkplugSettings
from adapters.sparkplug.source import SparkplugSource

__all__ = ["SparkplugSettings", "SparkplugSource"]
