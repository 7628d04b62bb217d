"""procurement.purchase_order_issued 1 → 2: a line may say when it is to be delivered; before, none did."""

from typing import Any

from events.base import upcasts


@upcasts("procurement.purchase_order_issued", from_version=1)
def without_dates(old: dict[str, Any]) -> dict[str, Any]:
    """Nothing moves: what is new is optional."""
    return old
