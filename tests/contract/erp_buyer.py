"""What people do in the ERP: a buyer makes items, suppliers and orders, a clerk receives and cancels by hand. Over Tryton's own API, as its clients do."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from adapters.tryton.rpc import Rpc


class Buyer:
    """A person at the ERP."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc

    def id_of(self, model: str, field: str, value: str) -> int:
        (row,) = self.rpc.search(model, [[field, "=", value]], ["id"])
        return int(row["id"])

    def write(self, model: str, field: str, value: str, said: Mapping[str, Any]) -> None:
        """Change a record."""
        self.rpc.call(f"model.{model}.write", [self.id_of(model, field, value)], dict(said))

    def item(self, code: str, name: str, unit: str = "EA", *, lots: bool = True, unit_id: int = 0) -> int:
        """A product that is bought and kept; its id."""
        unit_id = unit_id or self.id_of("product.uom", "unece_code", unit)
        row = {
            "name": name,
            "code": code,
            "type": "goods",
            "purchasable": True,
            "default_uom": unit_id,
            "purchase_uom": unit_id,
            "account_category": self.id_of("product.category", "name", "Goods"),
            "lot_required": ["supplier", "storage"] if lots else [],
            "products": [["create", [{"suffix_code": "", "cost_price": Decimal("1.50")}]]],
        }
        self.rpc.call("model.product.template.create", [row])
        return self.id_of("product.product", "code", code)

    def supplier(self, code: str, name: str) -> int:
        row = {
            "code": code,
            "name": name,
            "addresses": [["create", [{"city": "Anytown"}]]],
            "categories": [["add", [self.id_of("party.category", "name", "Supplier")]]],
        }
        return int(self.rpc.call("model.party.party.create", [row])[0])

    def order(
        self, supplier: str, lines: Sequence[tuple[str, str, str]], on: date | None = None, *, confirmed: bool = True
    ) -> tuple[str, list[str]]:
        """A purchase order of (item, quantity, unit) lines: its number and the names of its lines. One that is not confirmed is a quotation."""
        party = self.id_of("party.party", "code", supplier)
        (address,) = self.rpc.search("party.address", [["party", "=", party]], ["id"], limit=1)
        rows: list[Mapping[str, Any]] = [
            {
                "product": self.id_of("product.product", "code", item),
                "quantity": float(quantity),
                "unit": self.id_of("product.uom", "unece_code", unit),
                "unit_price": Decimal("1.50"),
            }
            for item, quantity, unit in lines
        ]
        row = {"party": party, "invoice_address": address["id"], "invoice_party": party, "lines": [["create", rows]], "purchase_date": on}
        (purchase,) = self.rpc.call("model.purchase.purchase.create", [row])
        for button in ("quote", "confirm") if confirmed else ("quote",):
            self.rpc.call(f"model.purchase.purchase.{button}", [purchase])
        (found,) = self.rpc.search("purchase.purchase", [["id", "=", purchase]], ["number", "lines"])
        return found["number"], [str(line) for line in found["lines"]]

    def amend(self, order: str, line: str, quantity: str) -> None:
        """Order another quantity of a line."""
        (found,) = self.rpc.search("purchase.line", [["id", "=", int(line)]], ["product", "unit", "unit_price"])
        said = {name: found[name] for name in ("product", "unit", "unit_price")} | {"quantity": float(quantity)}
        row = {
            "purchase": self.id_of("purchase.purchase", "number", order),
            "lines": [["create", [{"action": "line", "line": int(line), **said}]]],
        }
        ids = self.rpc.call("model.purchase.amendment.create", [row])
        self.rpc.call("model.purchase.amendment.validate_amendment", ids)

    def receive_by_hand(self, supplier: str, place: str, item: str, lot: str, quantity: str, on: date) -> str:
        """What a clerk does without the hub; the number of the shipment."""
        party = self.id_of("party.party", "code", supplier)
        location, product = self.id_of("stock.location", "code", place), self.id_of("product.product", "code", item)
        (source,) = self.rpc.search("stock.location", [["type", "=", "supplier"]], ["id"])
        (warehouse,) = self.rpc.search("stock.location", [["type", "=", "warehouse"]], ["id"])
        move = {
            "product": product,
            "lot": self.id_of("stock.lot", "number", lot),
            "quantity": float(quantity),
            "unit": self.id_of("product.uom", "unece_code", "EA"),
            "from_location": source["id"],
            "to_location": location,
            "unit_price": Decimal(1),
            "currency": self.id_of("currency.currency", "code", "EUR"),
            "origin": self._any_move(),  # a clerk is asked whether it is meant, where there is none
        }
        places = {"warehouse": warehouse["id"], "warehouse_input": location, "warehouse_storage": location}
        row = {"supplier": party, "effective_date": on, "moves": [["create", [move]]], **places}
        ids = self.rpc.call("model.stock.shipment.in.create", [row])
        self.rpc.call("model.stock.shipment.in.receive", ids)
        (found,) = self.rpc.search("stock.shipment.in", [["id", "in", ids]], ["number"])
        return str(found["number"])

    def move_by_hand(self, item: str, lot: str, quantity: str, origin: str, to: str, on: date) -> None:
        """Move stock without any document."""
        move = {
            "product": self.id_of("product.product", "code", item),
            "lot": self.id_of("stock.lot", "number", lot),
            "quantity": float(quantity),
            "unit": self.id_of("product.uom", "unece_code", "EA"),
            "from_location": self.id_of("stock.location", "code", origin),
            "to_location": self.id_of("stock.location", "code", to),
            "effective_date": on,
        }
        ids = self.rpc.call("model.stock.move.create", [move])
        self.rpc.call("model.stock.move.write", ids, {"state": "assigned"})
        self.rpc.call("model.stock.move.do", ids)

    def cancel(self, model: str, number: str) -> None:
        """Cancel a document that is done, as whoever may cancel can."""
        self.rpc.call(f"model.{model}.cancel", [self.id_of(model, "number", number)])

    def _any_move(self) -> str:
        (found,) = self.rpc.search("stock.move", [["state", "=", "done"]], ["id"], limit=1)
        return f"stock.move,{found['id']}"
