"""The ERP as a target, a real Tryton: each posting is one document, whatever happens to request and answer, and its own database says so."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from adapters.tryton.rpc import Rpc
from adapters.tryton.target import RECEIPT, RETURN, TRANSFER, Tryton
from events.errors import Refused, Unavailable
from hub.app.servers.erp import Erp
from hub.app.servers.process import wait_until
from hub.outbox.target import Accepted, OutcomeUnknown, Posting, Rejected
from tests.contract.erp_buyer import Buyer
from tests.contract.http_proxy import HttpProxy, calls

pytestmark = pytest.mark.timeout(900)  # the template of the database is made once, which takes minutes on a loaded machine
WAIT_S, SHORT_S = 60.0, 2.0
ON = "2026-01-05"
Stock = dict[tuple[str, str, str], Decimal]


@pytest.fixture(scope="module")
def buyer(erp: Erp) -> Iterator[Buyer]:
    """A buyer whose supplier S1 sells motors by the piece and steel by weight, both by lot."""
    with Rpc(erp.url("buyer")) as rpc:
        found = Buyer(rpc)
        found.supplier("S1", "Acme")
        found.item("MOTOR", "Motor")
        found.item("STEEL", "Steel", "KGM")
        yield found


@pytest.fixture
def target(erp: Erp, buyer: Buyer) -> Iterator[Tryton]:
    found = Tryton(erp.url())
    found.ready()
    yield found
    found.close()


@pytest.fixture
def proxy(erp: Erp) -> Iterator[HttpProxy]:
    with HttpProxy(erp.port) as running:
        yield running


@pytest.fixture
def behind(erp: Erp, buyer: Buyer, proxy: HttpProxy) -> Iterator[Tryton]:
    """The ERP through the proxy, by somebody who waits for an answer only shortly."""
    found = Tryton(erp.url("hub", proxy.port), timeout_s=SHORT_S)
    yield found
    found.close()


def thing(lot: str, value: str = "10", item: str = "MOTOR", unit: str = "EA", line: str = "") -> dict[str, Any]:
    said: dict[str, Any] = {"item": item, "lot": lot, "quantity": {"value": value, "unit": unit}}
    return said | ({"purchase_order_line": line} if line else {})


def receipt(key: str, *things: Mapping[str, Any], status: str = "unrestricted", **more: str) -> Posting:
    said = {"supplier": "S1", "location": "DOCK", "status": status, "effective_on": ON, "things": list(things)}
    return Posting(key, RECEIPT, said | more)


def transfer(key: str, origin: str, to: str, *things: Mapping[str, Any], **more: str) -> Posting:
    said = {"effective_on": ON, "things": list(things), **more}
    for end, place in (("from", origin), ("to", to)):
        location, _, status = place.partition("/")
        said |= {f"{end}_location": location, f"{end}_status": status or "unrestricted"}
    return Posting(key, TRANSFER, said)


def returned(key: str, reverses: str, *things: Mapping[str, Any], status: str = "unrestricted") -> Posting:
    said = {"supplier": "S1", "location": "DOCK", "status": status, "effective_on": ON, "things": list(things), "reverses": reverses}
    return Posting(key, RETURN, said)


# -- what the ERP's own database says, without its program and without ours --


def rows(erp: Erp, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(erp.database_url) as connection:
        return connection.execute(query.encode(), values).fetchall()


def stock(erp: Erp, *lots: str) -> Stock:
    """What stands where: by location, item and lot; suppliers' locations not."""
    query = """
    select location.code, product.code, lot.number, sum(q)::numeric from (
      select to_location as place, product, lot, internal_quantity as q from stock_move where state = 'done'
      union all select from_location, product, lot, -internal_quantity from stock_move where state = 'done') moved
    join stock_location location on location.id = place join product_product product on product.id = moved.product
    join stock_lot lot on lot.id = moved.lot
    where lot.number = any(%s) and location.type in ('storage', 'lost_found') group by 1, 2, 3 having sum(q) <> 0"""
    return {(place, item, lot): amount for place, item, lot, amount in rows(erp, query, list(lots))}


def documents(erp: Erp, key: str) -> list[tuple[str, str]]:
    """State and number of all documents with that key, in all tables that have it."""
    found: list[tuple[str, str]] = []
    with psycopg.connect(erp.database_url) as connection:
        for document in (RECEIPT, RETURN, TRANSFER):
            query = sql.SQL("select state, number from {} where hub_key = %s").format(sql.Identifier(document.replace(".", "_")))
            found += connection.execute(query, [key]).fetchall()
    return found


def leftovers(erp: Erp) -> int:
    """Moves and documents that are begun and not done."""
    query = """select (select count(*) from stock_move where state not in ('done', 'cancelled') and shipment is not null)
      + (select count(*) from stock_shipment_in where state <> 'done') + (select count(*) from stock_shipment_internal where state <> 'done')"""
    return int(rows(erp, query)[0][0])


def said_back(target: Tryton, posting: Posting) -> dict[str, Any]:
    """What the posting's document says of all that the posting says."""
    found = target.find(posting)
    assert found is not None
    assert found.key == posting.key
    return {name: found.says.get(name) for name in posting.body}


# -- tests --


def test_a_receipt_against_an_order_is_stock_by_lot_and_the_rest_stays_awaited(erp: Erp, buyer: Buyer, target: Tryton) -> None:
    order, (motors, steel) = buyer.order("S1", [("MOTOR", "100", "EA"), ("STEEL", "12.5", "KGM")], date(2026, 1, 2))
    things = [thing("R1", "40", line=motors), thing("R2", "2", line=motors), thing("R3", "3500", "STEEL", "GRM", steel)]
    posting = receipt("receipt/1", *things, status="quality", purchase_order=order, reference="ASN 7")
    sent = target.send(posting)
    assert isinstance(sent, Accepted)
    assert said_back(target, posting) == posting.body
    assert stock(erp, "R1", "R2", "R3") == {
        ("DOCK/quality", "MOTOR", "R1"): 40,
        ("DOCK/quality", "MOTOR", "R2"): 2,
        ("DOCK/quality", "STEEL", "R3"): Decimal("3.5"),
    }
    query = "select origin, quantity, unit_price from stock_move where state = 'draft' and origin = any(%s) order by origin"
    assert rows(erp, query, [f"purchase.line,{motors}", f"purchase.line,{steel}"]) == [
        (f"purchase.line,{motors}", 58.0, Decimal("1.5000")),
        (f"purchase.line,{steel}", 9.0, Decimal("1.5000")),
    ]
    rest = receipt("receipt/2", thing("R4", "60", line=motors), purchase_order=order)  # two more than were ordered
    assert isinstance(target.send(rest), Accepted)
    assert rows(erp, query, [f"purchase.line,{motors}"]) == []
    price = "select unit_price from stock_move where lot = (select id from stock_lot where number = %s)"
    assert rows(erp, price, "R3") == [(Decimal("0.0015"),)]


def test_what_came_without_an_order_is_received_and_blocked(erp: Erp, target: Tryton) -> None:
    posting = receipt("unordered/1", thing("U1", "7"), status="blocked")
    assert isinstance(target.send(posting), Accepted)
    assert said_back(target, posting) == posting.body
    assert stock(erp, "U1") == {("DOCK/blocked", "MOTOR", "U1"): 7}


def test_stock_moves_between_places_and_statuses(erp: Erp, target: Tryton) -> None:
    assert isinstance(target.send(receipt("moves/1", thing("M1", "10"), status="quality")), Accepted)
    for n, (origin, to, amount) in enumerate(
        [
            ("DOCK/quality", "DOCK", "6"),  # released
            ("DOCK/quality", "DOCK/blocked", "3"),
            ("DOCK/quality", "DOCK/scrap", "1"),
            ("DOCK", "WH1", "4"),
            ("WH1", "DOCK", "4"),  # and back: a move is undone by its opposite
            ("DOCK/scrap", "DOCK/quality", "1"),
        ],
        2,
    ):
        posting = transfer(f"moves/{n}", origin, to, thing("M1", amount), **({"reverses": f"moves/{n - 1}"} if n == 6 else {}))
        assert isinstance(target.send(posting), Accepted), posting
        assert said_back(target, posting) == posting.body
    assert stock(erp, "M1") == {("DOCK", "MOTOR", "M1"): 6, ("DOCK/blocked", "MOTOR", "M1"): 3, ("DOCK/quality", "MOTOR", "M1"): 1}


def test_a_receipt_is_undone_by_a_document_of_its_own(erp: Erp, buyer: Buyer, target: Tryton) -> None:
    order, (line,) = buyer.order("S1", [("MOTOR", "5", "EA")], date(2026, 1, 2))
    assert isinstance(target.send(receipt("undone/1", thing("B1", "5", line=line), purchase_order=order)), Accepted)
    undo = returned("undone/2", "undone/1", thing("B1", "5"))
    assert isinstance(target.send(undo), Accepted)
    assert said_back(target, undo) == undo.body
    assert stock(erp, "B1") == {}
    assert isinstance(target.send(receipt("undone/3", thing("B1", "4", line=line), purchase_order=order)), Accepted)
    assert stock(erp, "B1") == {("DOCK", "MOTOR", "B1"): 4}
    other = target.send(returned("undone/4", "undone/1", thing("B2", "5")))
    assert other == Rejected("undone/1 brought no MOTOR lot B2 in EA in: name a receipt that did, or none")
    assert isinstance(target.send(returned("undone/5", "never/posted", thing("B1", "4"))), Rejected)


def test_a_posting_that_comes_again_and_again_is_one_document(erp: Erp, target: Tryton) -> None:
    postings = [
        receipt("again/1", thing("A1", "10"), status="quality"),
        transfer("again/2", "DOCK/quality", "DOCK", thing("A1", "6")),
        returned("again/3", "again/1", thing("A1", "4"), status="quality"),
    ]
    for posting in postings:
        assert len({target.send(posting) for _ in range(3)}) == 1
        assert [state for state, _ in documents(erp, posting.key)] == ["done"]
    assert stock(erp, "A1") == {("DOCK", "MOTOR", "A1"): 6}


def test_of_requests_with_one_key_that_come_together_one_makes_the_document(erp: Erp, buyer: Buyer) -> None:
    posting = receipt("together/1", thing("T1", "10"))
    targets = [Tryton(erp.url()) for _ in range(4)]
    start, sent = threading.Barrier(len(targets)), []

    def send(target: Tryton) -> None:
        target.ready()
        start.wait(WAIT_S)
        sent.append(target.send(posting))

    threads = [threading.Thread(target=send, args=[target]) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(sent) == len(targets)
    assert {type(one) for one in sent} == {Accepted}
    assert len(set(sent)) == 1
    assert stock(erp, "T1") == {("DOCK", "MOTOR", "T1"): 10}


def test_transfers_of_one_item_that_come_together_wait_for_one_another(erp: Erp, target: Tryton) -> None:
    lots = [f"W{n}" for n in range(12)]
    for lot in lots:
        assert isinstance(target.send(receipt(f"busy/{lot}", thing(lot, "1"), status="quality")), Accepted)
    sent: list[object] = []

    def send(part: Sequence[str]) -> None:
        sent.extend(target.send(transfer(f"moved/{lot}", "DOCK/quality", "WH1", thing(lot, "1"))) for lot in part)

    threads = [threading.Thread(target=send, args=[lots[n::4]]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert [type(one) for one in sent] == [Accepted] * len(lots)
    assert stock(erp, *lots) == {("WH1", "MOTOR", lot): 1 for lot in lots}


@pytest.mark.parametrize("again_first", [True, False], ids=["sent again first", "held one lands first"])
def test_a_request_that_was_held_past_the_time_out_makes_no_second_document(
    erp: Erp, proxy: HttpProxy, behind: Tryton, again_first: bool
) -> None:
    lot = f"H{again_first:d}"
    posting = receipt(f"held/{lot}", thing(lot, "10"))
    proxy.hold(calls("hub_post"))
    with pytest.raises(OutcomeUnknown):
        behind.send(posting)
    assert behind.find(posting) is None
    proxy.mend()
    if again_first:
        sent = behind.send(posting)
        (late,) = proxy.release()
        assert b"There is a document with this hub key already." in late
    else:
        (late,) = proxy.release()
        assert b'"result":"IN' in late.replace(b" ", b"")
        sent = behind.send(posting)
    ((state, number),) = documents(erp, posting.key)
    assert state == "done"
    assert sent == Accepted(f"Supplier Shipment {number}")
    assert stock(erp, lot) == {("DOCK", "MOTOR", lot): 10}


def test_an_answer_that_is_lost_after_the_commit_is_found_by_the_key(erp: Erp, proxy: HttpProxy, behind: Tryton) -> None:
    posting = receipt("lost/1", thing("L1", "10"))
    proxy.lose(calls("hub_post"))
    with pytest.raises(OutcomeUnknown):
        behind.send(posting)
    proxy.mend()
    found = behind.find(posting)
    assert found is not None
    assert behind.send(posting) == Accepted(found.id)
    assert stock(erp, "L1") == {("DOCK", "MOTOR", "L1"): 10}


def test_what_was_under_way_when_the_erp_died_is_not_there_and_can_be_sent(erp: Erp, target: Tryton) -> None:
    posting = receipt("dead/1", thing("D1", "10"))
    outcomes: list[object] = []

    def send() -> None:
        try:
            outcomes.append(target.send(posting))
        except OutcomeUnknown as error:
            outcomes.append(error)

    with psycopg.connect(erp.database_url) as connection:
        connection.execute("lock table stock_shipment_in in exclusive mode")  # it gets so far and no further
        thread = threading.Thread(target=send)
        thread.start()
        waits = b"select 1 from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())"
        with psycopg.connect(erp.database_url, autocommit=True) as watching:
            assert wait_until(lambda: bool(watching.execute(waits).fetchall()), WAIT_S)
        erp.kill()
        thread.join(WAIT_S)
    assert isinstance(outcomes[0], OutcomeUnknown)
    for ask in (target.ready, lambda: target.find(posting), lambda: target.send(posting)):
        with pytest.raises(Unavailable, match="cannot be reached"):
            ask()
    erp.start()
    assert target.find(posting) is None
    assert isinstance(target.send(posting), Accepted)
    assert [state for state, _ in documents(erp, posting.key)] == ["done"]
    assert stock(erp, "D1") == {("DOCK", "MOTOR", "D1"): 10}


def test_kill_9_at_any_moment_leaves_each_posting_once(erp: Erp, target: Tryton) -> None:
    sent: set[str] = set()
    wanted = [receipt(f"killed/{n}", thing(f"K{n}", "10")) for n in range(12)]
    stop = threading.Event()

    def send(postings: Sequence[Posting]) -> None:
        for posting in postings:
            while posting.key not in sent and not stop.is_set():
                try:
                    if isinstance(target.send(posting), Accepted):
                        sent.add(posting.key)
                except (OutcomeUnknown, Unavailable):
                    stop.wait(0.05)

    threads = [threading.Thread(target=send, args=[wanted[part::2]]) for part in range(2)]
    for thread in threads:
        thread.start()
    try:
        for pause in (0.4, 0.9, 1.6):
            time.sleep(pause)
            erp.kill()
            erp.start()
        for thread in threads:
            thread.join(WAIT_S * 2)
    finally:
        stop.set()
    assert sent == {posting.key for posting in wanted}
    assert [len(documents(erp, posting.key)) for posting in wanted] == [1] * len(wanted)
    assert stock(erp, *(f"K{n}" for n in range(12))) == {("DOCK", "MOTOR", f"K{n}"): 10 for n in range(12)}


@pytest.mark.parametrize(
    ("posting", "words"),
    [
        (receipt("no/1", thing("N1", item="NOBODY")), "item 'NOBODY': Tryton has no active record (product.product) with it as its code"),
        (receipt("no/2", thing("N1"), status="missing"), "location 'DOCK/missing': Tryton has no active record"),
        (receipt("no/3", thing("N1", unit="MTR")), 'The value "Meter" for field "Unit"'),
        (receipt("no/4", thing("N1", "1.5")), "digits"),
        (receipt("no/5", thing("N1", "12345678901234567890", "STEEL", "KGM")), "has more digits than Tryton keeps"),
        (receipt("no/6", thing("N1"), purchase_order="PO999"), "purchase order PO999: Tryton has none of that number"),
        (receipt("no/7", thing("N1", line="1")), "there is no line 1 of an order"),
        (transfer("no/8", "DOCK", "WH1", thing("N1", "999999")), "not enough of it is where it is taken from"),
        (transfer("no/9", "DOCK", "DOCK", thing("N1")), "source and destination of stock move must be different"),
        (Posting("no/10", RECEIPT, {"supplier": "S1"}), "the posting names no things"),
        (Posting("no/11", RECEIPT, dict(receipt("", thing("N1")).body) | {"colour": "red"}), "the posting says 'colour'"),
        (receipt("no/12", {**thing("N1"), "serial": "1"}), "a thing says 'serial'"),
        (Posting("no/13", "account.move", {}), "Tryton is told of"),
        (receipt("no/14", thing("N1"), effective_on="soon"), "effective_on 'soon' is not a date"),
    ],
    ids=lambda value: value.key if isinstance(value, Posting) else "",
)
def test_what_the_erp_will_not_have_is_rejected_in_words_and_leaves_nothing(erp: Erp, target: Tryton, posting: Posting, words: str) -> None:
    sent = target.send(posting)
    assert isinstance(sent, Rejected)
    assert words in sent.reason
    assert documents(erp, posting.key) == []
    assert leftovers(erp) == 0
    assert stock(erp, "N1") == {}


def test_an_error_of_the_erp_itself_is_told_and_leaves_nothing(erp: Erp, target: Tryton) -> None:
    broken = "alter table stock_move add constraint broken check (lot is null or internal_quantity <> 77)"
    with psycopg.connect(erp.database_url, autocommit=True) as connection:
        connection.execute(broken.encode())
        try:
            sent = target.send(receipt("failed/1", thing("F1", "77")))
        finally:
            connection.execute("alter table stock_move drop constraint broken")
    assert isinstance(sent, Rejected)
    assert "broken" in sent.reason
    assert documents(erp, "failed/1") == []


def test_all_documents_are_listed_whoever_made_them_and_what_was_cancelled_is_not(erp: Erp, buyer: Buyer, target: Tryton) -> None:
    day = "2026-02-03"
    ours = [receipt(f"listed/{n}", thing(f"P{n}", "5"), effective_on=day) for n in range(3)]
    for posting in ours:
        assert isinstance(target.send(posting), Accepted)
    foreign = buyer.receive_by_hand("S1", "DOCK", "MOTOR", "P1", "2", date(2026, 2, 3))
    buyer.cancel(RECEIPT, documents(erp, "listed/2")[0][1])
    buyer.move_by_hand("MOTOR", "P0", "1", "DOCK", "DOCK/scrap", date(2026, 2, 3))
    found = list(target.documents(datetime(2026, 2, 3, tzinfo=UTC), datetime(2026, 2, 4, tzinfo=UTC)))
    assert Counter(document.key for document in found) == {"listed/0": 1, "listed/1": 1, "": 2}
    assert [d.id for d in found if not d.key and d.document == RECEIPT] == [f"Supplier Shipment {foreign}"]
    for document, posting in zip([d for d in found if d.key], ours, strict=False):
        assert document.says == posting.body
        assert document.at == datetime(2026, 2, 3, tzinfo=UTC)
    cancelled = target.find(ours[2])
    assert cancelled is not None
    assert cancelled.says == {"state": "cancelled"}
    assert target.send(ours[2]) == Accepted(cancelled.id)  # it is not made again behind the back of who cancelled it
    assert list(target.documents(datetime(2026, 2, 4, tzinfo=UTC), datetime(2026, 2, 9, tzinfo=UTC))) == []
    assert stock(erp, "P0", "P1", "P2") == {("DOCK", "MOTOR", "P0"): 4, ("DOCK/scrap", "MOTOR", "P0"): 1, ("DOCK", "MOTOR", "P1"): 7}


def test_two_receipts_of_a_new_lot_that_come_together_make_one_lot(erp: Erp, buyer: Buyer) -> None:
    postings = [receipt(f"lots/{n}", thing("Q1", "1")) for n in range(4)]
    targets = [Tryton(erp.url()) for _ in postings]
    start, sent = threading.Barrier(len(targets)), []

    def send(target: Tryton, posting: Posting) -> None:
        target.ready()
        start.wait(WAIT_S)
        sent.append(target.send(posting))

    threads = [threading.Thread(target=send, args=pair) for pair in zip(targets, postings, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert [type(one) for one in sent] == [Accepted] * 4
    assert rows(erp, "select count(*) from stock_lot where number = 'Q1'") == [(1,)]
    assert stock(erp, "Q1") == {("DOCK", "MOTOR", "Q1"): 4}


def test_a_session_that_has_ended_is_begun_anew(erp: Erp, target: Tryton) -> None:
    with psycopg.connect(erp.database_url) as connection:
        connection.execute("delete from ir_session")
    posting = receipt("session/1", thing("S1", "10"))
    assert isinstance(target.send(posting), Accepted)
    assert [state for state, _ in documents(erp, posting.key)] == ["done"]


class WithoutModule(HttpProxy):
    """A Tryton whose shipments have no hub key."""

    def _pass(self, request: bytes) -> bytes:
        return super()._pass(request).replace(b'"hub_key"', b'"any_key"')


def test_an_erp_that_would_take_a_key_twice_is_not_posted_to(erp: Erp, buyer: Buyer) -> None:
    with WithoutModule(erp.port) as proxy:
        target = Tryton(erp.url("hub", proxy.port))
        for _ in range(2):
            with pytest.raises(Unavailable, match="lacks the module millwright: activate it there"):
                target.ready()
        target.close()


def test_a_wrong_address_is_named_with_the_remedy(erp: Erp) -> None:
    for address, words in (
        (erp.url().replace("millwright-hub", "wrong-password"), "does not let hub in"),
        (erp.url().replace(erp.name, "nowhere"), "correct its address"),
        (erp.url("hub", 1), "cannot be reached"),
    ):
        with pytest.raises(Unavailable, match=words):
            Tryton(address).ready()
    for address in ("http://127.0.0.1:8000/erp", "erp", "ftp://a:b@c/d"):
        with pytest.raises(Refused, match="http://USER:PASSWORD@HOST:PORT/DATABASE"):
            Tryton(address)
