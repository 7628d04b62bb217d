"""The canonical language of the hub: importing this package registers every event type and every upcaster."""

import importlib
import pkgutil

from events import upcasters
from events.base import Envelope, Event, Fact, Recorded, event_types, validated

_NOT_EVENTS = {"base", "canonical", "errors", "gs1", "plain", "quick", "vocabulary", "upcasters"}

for _module in pkgutil.iter_modules(__path__):
    if _module.name not in _NOT_EVENTS:
        importlib.import_module(f"events.{_module.name}")
for _module in pkgutil.iter_modules(upcasters.__path__):
    importlib.import_module(f"events.upcasters.{_module.name}")

__all__ = ["Envelope", "Event", "Fact", "Recorded", "event_types", "validated"]
