"""The ERP Tryton as a target: receipts, returns and transfers become its documents, once each, and are read back as what they say.

    stock.shipment.in          things came in: against lines of a purchase order, or without one
    stock.shipment.in.return   they went back to the supplier: a receipt is undone
    stock.shipment.internal    they moved between places or statuses

A body names things of the ERP by their codes; docs/erp.md says what stands in it. A status is a location: PLACE for unrestricted stock, else
PLACE/STATUS. Each document is made by one call of the module `millwright` in Tryton (hub/app/servers/erp_module), so it is done or not there, and its
key is unique in Tryton's database: of two requests with one key the database refuses the second, whenever it lands.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from adapters.tryton.rpc import Busy, Row, Rpc, Unanswered, day
from events.canonical import decimal_text, dumps
from events.errors import Refused, Unavailable
from events.vocabulary import read_decimal
from hub import limits
from hub.outbox.target import Accepted, Document, OutcomeUnknown, Posting, Rejected

RECEIPT, RETURN, TRANSFER, BY_HAND = "stock.shipment.in", "stock.shipment.in.return", "stock.shipment.internal", "stock.move"
UNRESTRICTED = "unrestricted"

_NAMES = {RECEIPT: "Supplier Shipment", RETURN: "Supplier Return Shipment", TRANSFER: "Internal Shipment", BY_HAND: "Stock Move"}
_TAKEN = [["wait", "waiting"], ["assign_try", "assigned"], ["do", "done"]]  # from stock: what is not there cannot be assigned
_STEPS = {RECEIPT: [["receive", "done"]], RETURN: _TAKEN, TRANSFER: _TAKEN}  # buttons, and the state that each must lead to
_SHARED = frozenset({"effective_on", "things", "reference", "reverses"})
_FIELDS = {
    RECEIPT: _SHARED | {"supplier", "purchase_order", "location", "status"},
    RETURN: _SHARED | {"supplier", "location", "status"},
    TRANSFER: _SHARED | {"from_location", "from_status", "to_location", "to_status"},
}
_MOVES = {RECEIPT: "incoming_moves", RETURN: "moves", TRANSFER: "moves"}
_HEAD = ("number", "state", "effective_date", "reference", "hub_key", "hub_reverses")
_MOVE = ("product.code", "lot.number", "quantity", "unit.unece_code", "unit.digits", "from_location.code", "to_location.code", "origin")
_LINE = "purchase.line,"
_PRICE = Decimal("0.0001")  # Tryton's own four decimals of a price


class Tryton:
    """One company in one database of Tryton, used by several threads. `address`: http://USER:PASSWORD@HOST:PORT/DATABASE.

    `name` is what postings call it; `timeout_s` how long one answer is waited for.
    """

    refuses_twice = True  # by the module that `ready` looks for

    def __init__(self, address: str, name: str = "erp", timeout_s: float = limits.ERP_ANSWER_S) -> None:
        self.name = name
        self.rpc = Rpc(address, timeout_s)
        self._known: dict[tuple[str, str], tuple[float, Row]] = {}
        self._checked = False

    def close(self) -> None:
        """Leave it for good."""
        self.rpc.close()

    # -- what the sender asks for --

    def ready(self) -> None:
        """Whether Tryton lets us in and has the module that refuses a second document with one key. Raises `Unavailable` naming the remedy."""
        if not self._checked and "hub_key" not in self.rpc.read(f"model.{RECEIPT}.fields_get", ["hub_key"]):
            raise Unavailable(f"Tryton at {self.rpc.address} lacks the module millwright: activate it there (docs/erp.md)")
        self._checked = True
        self.rpc.read("model.ir.date.today")

    def send(self, posting: Posting) -> Accepted | Rejected:
        """Let Tryton make the document. Raises `Unavailable` (nothing was sent), `OutcomeUnknown`."""
        try:
            number = self._post(posting, self._values(posting))
        except Unanswered as error:
            raise OutcomeUnknown(str(error)) from error
        except Refused as error:
            # Tryton has answered, so that transaction is over: what it did, and what another one with this key did, can be seen
            try:
                found = self.find(posting)
            except Unavailable as unseen:
                raise OutcomeUnknown(f"{error}; whether it is there already could not be seen: {unseen}") from unseen
            return Accepted(found.id) if found else Rejected(str(error))
        return Accepted(f"{_NAMES[posting.document]} {number}")

    def _post(self, posting: Posting, values: Row) -> str:
        """The number of the document. Two transfers of an item from one place are in each other's way in Tryton, which then gives up."""
        for wait_s in limits.ERP_BUSY_WAITS_S:
            try:
                return self._post_once(posting, values)
            except Busy:
                time.sleep(wait_s * random.uniform(0.5, 1.5))  # apart, or they meet again; the key makes a repeat safe
        return self._post_once(posting, values)

    def _post_once(self, posting: Posting, values: Row) -> str:
        return str(self.rpc.call(f"model.{posting.document}.hub_post", values, _STEPS[posting.document]))

    def find(self, posting: Posting) -> Document | None:
        """The document with the posting's key, also one that was cancelled since. Raises `Unavailable`."""
        if posting.document not in _STEPS:
            return None
        for row in self._read(posting.document, [["hub_key", "=", posting.key]]):
            found = _document(posting.document, row)
            wanted = posting.body.get("things")
            if isinstance(wanted, list) and _sorted(wanted) == found.says.get("things"):  # the order of things says nothing
                return Document(found.id, found.key, found.document, {**found.says, "things": wanted}, found.at)
            return found
        return None

    def documents(self, since: datetime, until: datetime) -> Iterator[Document]:
        """All that moved stock in a period (effective dates, midnight UTC), whoever made it: shipments that are done, moves that belong to none.

        What was cancelled is not there. Raises `Unavailable`.
        """
        within = [["state", "=", "done"], ["effective_date", ">=", day(since.date())], ["effective_date", "<=", day(until.date())]]
        for model in _STEPS:
            found = (_document(model, row) for row in self._read(model, within))
            yield from (document for document in found if since <= document.at < until)
        for row in self.rpc.pages(BY_HAND, [*within, ["shipment", "=", None]], ["effective_date", *_MOVE]):
            if since <= (at := _at(row["effective_date"])) < until:
                says = {"from": _code(row, "from_location"), "to": _code(row, "to_location"), "things": [_told(row)]}
                yield Document(f"{_NAMES[BY_HAND]} {row['id']}", "", BY_HAND, says, at)

    def _read(self, model: str, domain: Sequence[Any]) -> Iterator[Row]:
        """Documents of one kind with their moves."""
        ends = ["from_location.code", "to_location.code"] if model == TRANSFER else ["supplier.code"]
        orders = ["purchase.number"] if model == RECEIPT else []
        yield from self.rpc.pages(model, domain, [*_HEAD, *ends, *(f"{_MOVES[model]}.{field}" for field in (*_MOVE, *orders))])

    # -- what Tryton is told --

    def _values(self, posting: Posting) -> Row:
        """The document as Tryton's `create` takes it. Raises `Refused` where something that it names is not there, `Unavailable`."""
        if posting.document not in _FIELDS:
            raise Refused(f"Tryton is told of {', '.join(_FIELDS)}, not of {posting.document!r}: see docs/erp.md")
        body = _Body(posting.body, _FIELDS[posting.document])
        head = {"hub_key": posting.key, "hub_reverses": body.text("reverses", None), "reference": body.text("reference", None)}
        head |= {"company": self.rpc.context.get("company"), "effective_date": body.day("effective_on")}
        make = {RECEIPT: self._receipt, RETURN: self._return, TRANSFER: self._transfer}[posting.document]
        return {**head, **make(body)}

    def _receipt(self, body: "_Body") -> Row:
        place = self._place(body, "location", "status")
        order = self._order(body)
        supplier = self._supplier(body, order)
        free = self._awaited(order, body)
        moves: list[Any] = []
        for thing in body.things:
            line = order["lines"].get(thing.line) if order else None
            if thing.line and line is None:
                known = f"its lines are {', '.join(order['lines'])}" if order else "no purchase order is named"
                raise Refused(f"there is no line {thing.line} of {body.text('purchase_order', None) or 'an order'}: {known}")
            said = self._move(thing) | {"from_location": supplier["supplier_location"], "to_location": place["id"]}
            planned = next((move for move in free if line and move["origin"] == f"{_LINE}{line['id']}"), None)
            if planned is None or planned["unit"] != said["unit"]:
                said |= self._price(thing, line)
            if planned is None:
                moves.append(["create", [said | {"origin": f"{_LINE}{line['id']}" if line else None}]])
            else:  # the move that Tryton has planned for the line; it plans what is left anew
                free.remove(planned)
                moves += [["write", [planned["id"]], said], ["add", [planned["id"]]]]
        # straight to its place: Tryton's own step from the input zone into storage is left out
        places = {"warehouse": place["warehouse"], "warehouse_input": place["id"], "warehouse_storage": place["id"]}
        return {"supplier": supplier["id"], "moves": moves, **places}

    def _return(self, body: "_Body") -> Row:
        place, supplier = self._place(body, "location", "status"), self._supplier(body, None)
        ways = {"from_location": place["id"], "to_location": supplier["supplier_location"]}
        undone = self._undone(body)
        moves: list[Row] = []
        for thing in body.things:
            said = self._move(thing) | ways
            original = next(
                (m for m in undone if (m["product"], m["lot"], m["unit"]) == (said["product"], said["lot"], said["unit"])), None
            )
            if original is None and body.text("reverses", None):
                raise Refused(f"{body.text('reverses')} brought no {thing} in: name a receipt that did, or none")
            if original is None:
                moves.append(said | self._price(thing, None))
            else:
                undone.remove(original)
                price = {"unit_price": original["unit_price"], "currency": original["currency"]}
                moves.append(said | price | {"origin": f"{BY_HAND},{original['id']}"})
        return {"supplier": supplier["id"], "moves": [["create", moves]], **ways}

    def _transfer(self, body: "_Body") -> Row:
        origin, target = self._place(body, "from_location", "from_status"), self._place(body, "to_location", "to_status")
        ways = {"from_location": origin["id"], "to_location": target["id"]}
        return {"moves": [["create", [self._move(thing) | ways for thing in body.things]]], **ways}

    def _move(self, thing: "_Thing") -> Row:
        product = self._product(thing.item)
        unit, quantity = self._unit(thing.unit), float(thing.value)
        if Decimal(repr(quantity)) != thing.value:
            raise Refused(f"{decimal_text(thing.value)} of {thing.item} has more digits than Tryton keeps: it would become {quantity!r}")
        lot = self._lot(product["id"], thing.lot) if thing.lot else None
        return {"product": product["id"], "lot": lot, "quantity": quantity, "unit": unit["id"], "company": self.rpc.context.get("company")}

    def _price(self, thing: "_Thing", line: Row | None) -> Row:
        """What one unit of it costs: as ordered, else at cost."""
        if line:
            price, of, currency = line["unit_price"], line["unit."], line["purchase."]["currency"]
        else:
            product = self._product(thing.item)
            price, of, currency = product["cost_price"] or Decimal(0), product["default_uom."], self._currency()
        return {"unit_price": (price * self._unit(thing.unit)["factor"] / of["factor"]).quantize(_PRICE), "currency": currency}

    def _lot(self, product: int, number: str) -> int:
        """The lot of a product, made where there is none; the database has each only once."""
        wanted = [["product", "=", product], ["number", "=", number]]
        if found := self.rpc.search("stock.lot", wanted, ["id"]):
            return int(found[0]["id"])
        try:
            return int(self.rpc.call("model.stock.lot.create", [{"product": product, "number": number}])[0])
        except Unanswered as error:
            raise Unavailable(str(error)) from error  # of the posting nothing has left; a lot that was made after all is found
        except Refused:
            if found := self.rpc.search("stock.lot", wanted, ["id"]):  # another request was first
                return int(found[0]["id"])
            raise

    # -- what Tryton knows --

    def _product(self, code: str) -> Row:
        return self._one("product.product", "code", code, ["cost_price", "default_uom.factor"], "item")

    def _unit(self, code: str) -> Row:
        return self._one("product.uom", "unece_code", code, ["factor"], "unit of measure")

    def _currency(self) -> int:
        return int(self._one("company.company", "id", self.rpc.context.get("company"), ["currency"], "company")["currency"])

    def _place(self, body: "_Body", location: str, status: str) -> Row:
        code, at = body.text(location), body.text(status)
        if "/" in code:
            raise Refused(f"{location} {code!r} holds a slash, which parts place and status in Tryton: give the place another name")
        name = code if at == UNRESTRICTED else f"{code}/{at}"
        return self._one("stock.location", "code", name, ["warehouse"], "location")

    def _supplier(self, body: "_Body", order: Row | None) -> Row:
        code = body.text("supplier", order["party."]["code"] if order else "")
        if order and order["party."]["code"] != code:
            raise Refused(f"purchase order {order['number']} is of supplier {order['party.']['code']}, not of {code}")
        return self._one("party.party", "code", code, ["supplier_location"], "supplier")

    def _one(self, model: str, field: str, value: object, fields: list[str], what: str) -> Row:
        """The only record of a name; what is known is asked again after a minute."""
        known = self._known.get((model, str(value)))
        if known and known[0] > time.monotonic():
            return known[1]
        found = self.rpc.search(model, [[field, "=", value]], [*fields, "id"])
        if len(found) != 1:
            number = f"{len(found)} active records" if found else "no active record"
            raise Refused(
                f"{what} {value!r}: Tryton has {number} ({model}) with it as its {field}: correct it there, or map it to another name"
            )
        self._known[model, str(value)] = time.monotonic() + limits.ERP_KNOWN_S, found[0]
        return found[0]

    def _order(self, body: "_Body") -> Row | None:
        number = body.text("purchase_order", None)
        if number is None:
            return None
        open_ = [["number", "=", number], ["state", "in", ["confirmed", "processing", "done"]]]
        found = self.rpc.search("purchase.purchase", open_, ["number", "party.code"])
        if len(found) != 1:
            raise Refused(f"purchase order {number}: Tryton has {len(found) or 'none'} of that number that is confirmed: look there")
        fields = ["unit_price", "unit.factor", "purchase.currency"]
        lines = self.rpc.search("purchase.line", [["purchase", "=", found[0]["id"]], ["type", "=", "line"]], fields)
        return {**found[0], "lines": {str(line["id"]): line for line in lines}}

    def _awaited(self, order: Row | None, body: "_Body") -> list[Row]:
        """The moves that Tryton has planned for the lines and that are in nobody's shipment."""
        lines = sorted({thing.line for thing in body.things if thing.line} & set(order["lines"] if order else ()))
        if not lines:
            return []
        domain = [["origin", "in", [f"{_LINE}{line}" for line in lines]], ["state", "in", ["staging", "draft"]], ["shipment", "=", None]]
        return self.rpc.search(BY_HAND, domain, ["origin", "unit"])

    def _undone(self, body: "_Body") -> list[Row]:
        """The moves of the receipt that is undone."""
        key = body.text("reverses", None)
        if key is None:
            return []
        found = self.rpc.search(RECEIPT, [["hub_key", "=", key], ["state", "=", "done"]], ["incoming_moves"])
        if not found:
            raise Refused(
                f"{key} is to be undone, but Tryton has no done receipt with that hub key: post it first, or undo it there by hand"
            )
        wanted = ["product", "lot", "unit", "unit_price", "currency"]
        return self.rpc.search(BY_HAND, [["id", "in", found[0]["incoming_moves"]]], wanted)


@dataclass(frozen=True, slots=True)
class _Thing:
    """One thing of a body."""

    item: str
    lot: str | None
    value: Decimal
    unit: str
    line: str | None

    def __str__(self) -> str:
        return f"{self.item}{f' lot {self.lot}' if self.lot else ''} in {self.unit}"


class _Body:
    """A posting's body, whose every wrong field is named. Raises `Refused`."""

    def __init__(self, said: Mapping[str, Any], known: frozenset[str]) -> None:
        self._said = said
        if unknown := sorted(said.keys() - known):
            raise Refused(f"the posting says {unknown[0]!r}, for which Tryton has no place: see docs/erp.md")
        things = said.get("things")
        if not isinstance(things, list) or not things:
            raise Refused("the posting names no things: see docs/erp.md")
        self.things = [_thing(thing) for thing in things]

    def text(self, name: str, default: Any = "") -> Any:
        """A text; "" as `default` says that it must be there."""
        found = self._said.get(name, default)
        if found is default is None:
            return None
        if not isinstance(found, str) or not found:
            raise Refused(f"the posting says no {name}: see docs/erp.md")
        return found

    def day(self, name: str) -> date:
        """A date as YYYY-MM-DD."""
        try:
            return date.fromisoformat(self.text(name))
        except ValueError:
            raise Refused(f"{name} {self._said.get(name)!r} is not a date such as 2026-01-05") from None


def _thing(said: Any) -> _Thing:
    quantity = said.get("quantity") if isinstance(said, dict) else None
    value = read_decimal(quantity["value"]) if isinstance(quantity, dict) and isinstance(quantity.get("value"), str) else None
    if not isinstance(said, dict) or value is None or not isinstance(quantity, dict):
        raise Refused(f"{str(said)[:200]} has no quantity: Tryton keeps quantities of items, not handling units")
    if unknown := sorted(said.keys() - {"item", "lot", "quantity", "purchase_order_line"}):
        raise Refused(
            f"a thing says {unknown[0]!r}, for which Tryton has no place: give item, lot and quantity (a serial number is a lot of one)"
        )
    return _Thing(str(said.get("item", "")), said.get("lot"), value, str(quantity.get("unit", "")), said.get("purchase_order_line"))


# -- what Tryton says --


def _document(model: str, row: Row) -> Document:
    """A document in our words. One that is not done moved nothing and says only that."""
    name, at = f"{_NAMES[model]} {row['number']}", _at(row["effective_date"])
    if row["state"] != "done":
        return Document(name, row["hub_key"] or "", model, {"state": row["state"]}, at)
    moves: list[Row] = row[f"{_MOVES[model]}."]
    says: Row = {"things": _sorted([_told(move) for move in moves]), "effective_on": row["effective_date"].isoformat()}
    says |= {ours: row[theirs] for ours, theirs in (("reference", "reference"), ("reverses", "hub_reverses")) if row[theirs]}
    if model == TRANSFER:
        for end in ("from", "to"):
            says[f"{end}_location"], says[f"{end}_status"] = _parted(_code(row, f"{end}_location"))
        return Document(name, row["hub_key"] or "", model, says, at)
    says["supplier"] = row["supplier."]["code"]
    places = {_code(move, "to_location" if model == RECEIPT else "from_location") for move in moves}
    if len(places) == 1:
        says["location"], says["status"] = _parted(*places)
    orders = {order["number"] for move in moves if (order := move.get("purchase."))}
    if len(orders) == 1:
        (says["purchase_order"],) = orders
    return Document(name, row["hub_key"] or "", model, says, at)


def _told(move: Row) -> Row:
    """A thing as a body has it."""
    unit = move["unit."]
    value = move["quantity"].quantize(Decimal(1).scaleb(-unit["digits"]))  # a float of Tryton's, which rounds to these digits itself
    told: Row = {"item": _code(move, "product"), "quantity": {"value": decimal_text(value), "unit": unit["unece_code"] or ""}}
    if move["lot."]:
        told["lot"] = move["lot."]["number"]
    if (move["origin"] or "").startswith(_LINE):
        told["purchase_order_line"] = move["origin"].removeprefix(_LINE)
    return told


def _parted(code: str) -> tuple[str, str]:
    place, _, status = code.partition("/")
    return place, status or UNRESTRICTED


def _code(row: Row, name: str) -> str:
    return str((row[f"{name}."] or {}).get("code") or "")


def _at(effective: date | None) -> datetime:
    return datetime.combine(effective, datetime.min.time(), UTC) if effective else datetime.min.replace(tzinfo=UTC)


def _sorted(things: list[Any]) -> list[Any]:
    return sorted(things, key=dumps)
