"""The company in the ERP that `make erp` and the tests run: what a person would click together on a first day, over Tryton's own API.

company     Millwright Works, euros; the least chart of accounts with which a supplier's invoice can be made
units       UN/ECE Rec 20 codes on them; factors are exact
places      for each place P of the plant the locations P, P/quality, P/blocked and P/scrap, since a location is what Tryton has for a status
users       admin; hub, who posts stock; buyer, who buys and keeps master data
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.tryton.rpc import Rpc

USERS = {"admin": "millwright-admin", "hub": "millwright-hub", "buyer": "millwright-buyer"}
"""Logins and passwords. They are public: the server listens on loopback only and is for tests and demonstrations."""

PLACES = {"DOCK": "Goods in", "WH1": "Warehouse", "RETURNS": "Returns", "WIP": "Work in progress", "FG": "Finished goods"}
STATUSES = {"": "storage", "/quality": "storage", "/blocked": "storage", "/scrap": "lost_found"}
DIGITS = 3  # decimals of weights, lengths and volumes
UNITS = {"C62": "One", "H87": "Piece"}  # beside the each, and the same as it
_PREFIXES = {
    "Supplier Shipment": "IN",
    "Supplier Return Shipment": "RET",
    "Internal Shipment": "INT",
    "Purchase": "PO",
    "Production": "MO",
    "Quality Inspection": "QI",
}
_GROUPS = {
    "hub": ["Stock", "Purchase"],
    "buyer": [
        "Stock",
        "Stock Cancellation",
        "Purchase",
        "Purchase Administrator",
        "Purchase Amendment",
        "Product Administration",
        "Account Product Administration",
        "Party Administration",
        "Accounting",
        "Production",
        "Quality",
    ],
}


def furnish(rpc: Rpc) -> None:
    """Make all of it in an empty database, as admin."""
    company = _company(rpc)
    _accounts(rpc, company)
    _units(rpc)
    for name, prefix in _PREFIXES.items():
        ids = [row["id"] for row in rpc.search("ir.sequence", [["name", "=", name]], ["id"])]
        rpc.call("model.ir.sequence.write", ids, {"prefix": prefix})
    rpc.call("model.party.category.create", [{"name": name} for name in ("Supplier", "Customer", "Carrier")])
    for code, name in PLACES.items():
        add_place(rpc, code, name)
    for login, groups in _GROUPS.items():
        found = rpc.search("res.group", [["name", "in", groups]], ["id"])
        user = {"name": login.capitalize(), "login": login, "password": USERS[login], "companies": [["add", [company]]], "company": company}
        rpc.call("model.res.user.create", [user | {"groups": [["add", [row["id"] for row in found]]]}])


def add_place(rpc: Rpc, code: str, name: str) -> None:
    """The locations of one place of the plant, one a status."""
    (warehouse,) = rpc.search("stock.location", [["code", "=", "WH"]], ["storage_location"])
    rows: list[Mapping[str, Any]] = [
        {"name": f"{name}{status}", "code": f"{code}{status}", "type": kind}
        | ({"parent": warehouse["storage_location"]} if kind == "storage" else {})
        for status, kind in STATUSES.items()
    ]
    rpc.call("model.stock.location.create", rows)


def _company(rpc: Rpc) -> int:
    (currency,) = rpc.call("model.currency.currency.create", [{"name": "Euro", "symbol": "€", "code": "EUR"}])
    (party,) = rpc.call("model.party.party.create", [{"name": "Millwright Works"}])
    (company,) = rpc.call("model.company.company.create", [{"party": party, "currency": currency, "timezone": "UTC"}])
    (admin,) = rpc.search("res.user", [["login", "=", "admin"]], ["id"])
    groups = [row["id"] for row in rpc.search("res.group", [], ["id"])]
    said = {"companies": [["add", [company]]], "company": company, "groups": [["add", groups]]}
    rpc.call("model.res.user.write", [admin["id"]], said)
    rpc.renew()
    return int(company)


def _accounts(rpc: Rpc, company: int) -> None:
    def account(code: str, name: str, kind: Mapping[str, Any], **more: Any) -> int:
        (type_,) = rpc.call("model.account.account.type.create", [{"name": name, "company": company, **kind}])
        said = {"code": code, "name": name, "company": company, "type": type_, **more}
        return int(rpc.call("model.account.account.create", [said])[0])

    payable = account("2", "Payable", {"statement": "balance", "payable": True}, party_required=True, reconcile=True)
    receivable = account(
        "1", "Receivable", {"statement": "balance", "receivable": True, "assets": True}, party_required=True, reconcile=True
    )
    expense = account("6", "Goods", {"statement": "income", "expense": True})
    revenue = account("7", "Sales", {"statement": "income", "revenue": True})
    rpc.call("model.account.configuration.write", [1], {"default_account_payable": payable, "default_account_receivable": receivable})
    goods = {"name": "Goods", "accounting": True, "account_expense": expense, "account_revenue": revenue}
    rpc.call("model.product.category.create", [goods])
    rpc.call("model.purchase.configuration.write", [1], {"purchase_invoice_method": "manual"})  # the hub says when an invoice is ready


def _units(rpc: Rpc) -> None:
    (each,) = rpc.search("product.uom", [["symbol", "=", "u"]], ["category"])
    rpc.call("model.product.uom.write", [each["id"]], {"name": "Each", "unece_code": "EA"})
    rows: Sequence[Mapping[str, Any]] = [
        {"name": name, "symbol": code, "category": each["category"], "unece_code": code, "factor": 1, "rate": 1, "rounding": 1, "digits": 0}
        for code, name in UNITS.items()
    ]
    rpc.call("model.product.uom.create", rows)
    measured = rpc.search("product.uom", [["digits", ">", 0]], ["id"])
    rpc.call("model.product.uom.write", [row["id"] for row in measured], {"digits": DIGITS, "rounding": 10**-DIGITS})
