"""Our start of Tryton: it is installed and furnished once, its data stay, and nothing is left running."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from adapters.tryton.rpc import Rpc
from events.errors import Unavailable
from hub.app.servers import erp as server
from hub.app.servers import erp_company, process
from hub.app.servers.erp import Erp
from tests.conftest import need

pytestmark = pytest.mark.timeout(900)  # as in test_tryton.py
WAIT_S = 120.0


@pytest.fixture(autouse=True)
def _can_run() -> None:
    if reason := server.available():
        need("Tryton", reason)


def test_the_company_has_what_the_hub_posts_to(erp: Erp) -> None:
    with Rpc(erp.url("hub")) as rpc:
        codes = {row["code"] for row in rpc.search("stock.location", [["code", "!=", None]], ["code"])}
        assert codes >= {f"{place}{status}" for place in erp_company.PLACES for status in erp_company.STATUSES}
        units = {row["unece_code"]: (row["factor"], row["rate"]) for row in rpc.search("product.uom", [], ["unece_code", "factor", "rate"])}
        assert units["EA"] == units["C62"] == units["H87"] == units["KGM"] == (1, 1)
        assert [str(one) for one in units["GRM"]] == ["0.001", "1000.0"]
        assert rpc.context["company"]
    with psycopg.connect(erp.database_url) as connection:
        assert connection.execute("select current_user").fetchone() == (server.ROLE,)


def test_a_copy_of_a_database_is_a_company_of_its_own(erp: Erp, pg_owner_url: str, tmp_path: Path) -> None:
    server.new_database(pg_owner_url, "erp_other")
    try:
        with Erp(tmp_path / "other", pg_owner_url, "erp_other") as other, Rpc(other.url("buyer")) as there, Rpc(erp.url("buyer")) as here:
            there.call("model.party.party.create", [{"name": "Only there", "code": "THERE"}])
            assert here.search("party.party", [["code", "=", "THERE"]], ["id"]) == []
            port = other.port
            other.kill()
            assert other.start().port == port, "an address that was told stays the same"
            assert len(there.search("party.party", [["code", "=", "THERE"]], ["id"])) == 1
    finally:
        server.drop_database(pg_owner_url, "erp_other")


def test_a_folder_has_one_server_and_a_taken_port_is_named(erp: Erp, pg_owner_url: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="run by another process"):
        Erp(erp.folder, pg_owner_url, erp.name).start()
    with pytest.raises(Unavailable, match=r"port \d+ of 127\.0\.0\.1 is in use"):
        Erp(tmp_path / "other", pg_owner_url, erp.name, port=erp.port).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_foreground_command_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-m", "hub.app.servers.erp", "run", "--dir", str(tmp_path / "erp")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ | {"HUB_HOME": str(tmp_path / "home")}) as running:
        assert running.stdout is not None
        said = next(line for line in running.stdout if "listens on" in line)
        port = int(said.partition("127.0.0.1:")[2].partition(";")[0])
        address = next(line for line in running.stdout if "The hub reaches it at" in line).split()[5]
        with Rpc(address) as rpc:
            assert rpc.read("model.ir.date.today")
        running.send_signal(number)
        assert running.wait(WAIT_S) == (-number if number == signal.SIGKILL else 0)

    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    assert process.wait_until(gone, WAIT_S)
    assert process.wait_until(lambda: not (tmp_path / "home/pg/postmaster.pid").exists(), WAIT_S)


def test_what_is_missing_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(Unavailable, match="apt-get install python3-venv"):
        server.fetch()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(server, "LOCK", tmp_path / "missing.lock")
    monkeypatch.setattr(server, "_digest", lambda *files: "test")
    with pytest.raises(Unavailable, match="could not be installed: look at the network"):
        server.fetch()
    assert not (tmp_path / "millwright/erp-test/env/complete").exists()
