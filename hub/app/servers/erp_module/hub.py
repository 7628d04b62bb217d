# This file is part of a module for Tryton. GPL-3.0-or-later: see the COPYRIGHT file beside it.
"""What the hub needs of Tryton: its key on each document that it makes, once, and a document made whole or not at all."""

from trytond.i18n import gettext
from trytond.model import Unique, fields
from trytond.model.exceptions import AccessError, ValidationError
from trytond.pool import PoolMeta
from trytond.rpc import RPC
from trytond.transaction import Transaction


class Keyed:
    """A document that the hub makes. The database refuses a second one with the same key, whichever request comes to it first."""

    __slots__ = ()

    hub_key = fields.Char("Hub Key", readonly=True, strip=False, help="The posting of the hub that this document is.")
    hub_reverses = fields.Char("Hub Reverses", readonly=True, strip=False, help="The posting of the hub that this document undoes.")

    @classmethod
    def __setup__(cls):
        super().__setup__()
        table = cls.__table__()
        cls._sql_constraints.append(("hub_key_unique", Unique(table, table.hub_key), "millwright.msg_hub_key_unique"))
        cls.__rpc__["hub_post"] = RPC(readonly=False)

    @classmethod
    def copy(cls, records, default=None):
        default = {} if default is None else default.copy()
        default.setdefault("hub_key")
        default.setdefault("hub_reverses")
        return super().copy(records, default=default)

    @classmethod
    def hub_post(cls, values, steps):
        """Create one document and take it through its steps, (button, state after it), in the caller's one transaction; its number.

        An error leaves nothing behind. Warnings are not asked: they ask a person at the screen whether it is meant, and what the hub posts has happened.
        """
        with Transaction().set_context(_skip_warnings=True):
            records = cls.create([values])
            for button, state in steps:
                if button not in cls._buttons:
                    raise AccessError(gettext("millwright.msg_hub_step", step=button))
                getattr(cls, button)(records)
                (record,) = records = cls.browse(records)
                if record.state != state:
                    raise ValidationError(gettext("millwright.msg_hub_state", step=button, found=record.state, state=state))
            return record.number


class ShipmentIn(Keyed, metaclass=PoolMeta):
    __name__ = "stock.shipment.in"


class ShipmentInReturn(Keyed, metaclass=PoolMeta):
    __name__ = "stock.shipment.in.return"


class ShipmentInternal(Keyed, metaclass=PoolMeta):
    __name__ = "stock.shipment.internal"


class Purchase(Keyed, metaclass=PoolMeta):
    __name__ = "purchase.purchase"


class Production(Keyed, metaclass=PoolMeta):
    __name__ = "production"


class Inspection(Keyed, metaclass=PoolMeta):
    __name__ = "quality.inspection"


class Lot(metaclass=PoolMeta):
    """A lot number names one lot of a product, also when two receipts of it come at once."""

    __name__ = "stock.lot"

    @classmethod
    def __setup__(cls):
        super().__setup__()
        table = cls.__table__()
        cls._sql_constraints.append(("product_number_unique", Unique(table, table.product, table.number), "millwright.msg_lot_unique"))
