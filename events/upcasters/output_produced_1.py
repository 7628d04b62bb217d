"""production.output_produced 1 → 2: one lot in flat fields became a list of things, because one confirmation can make several lots."""

from typing import Any

from events.base import upcasts


@upcasts("production.output_produced", from_version=1)
def gather_things(old: dict[str, Any]) -> dict[str, Any]:
    """Version 1 was {output, order, item, lot, quantity, unit, location}; everything else keeps its name."""
    moved = {"item", "lot", "serial", "quantity", "unit"}
    thing = {"item": old["item"], "quantity": {"value": old["quantity"], "unit": old["unit"]}}
    thing |= {name: old[name] for name in ("lot", "serial") if old.get(name) is not None}
    return {k: v for k, v in old.items() if k not in moved} | {"things": [thing]}
