"""The edge's rows.

opcua: values that one client takes from a server in a second of its processor's time (the server, Python too, runs beside it and is slower), ours
through `receive` with what is to be remembered, against asyncua's own subscription with a handler that keeps value and time.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.opcua import OpcUaSettings, OpcUaSource, Start
from tests.contract.opcua_plant import URI, PlantServer
from tests.performance import append
from tests.performance.report import Against, Row, Sample, measure

# -- opcua -------------------------------------------------------------------------------------------------------------------------------

OPCUA_ITEMS = 100
OPCUA_PUBLISHING_S = 0.1
OPCUA_WAIT_S = 120.0


def opcua_rows(bench: append.Bench, only: str) -> Iterator[list[Row]]:
    """The row `edge-opcua`, where its name begins with `only`."""
    if not "edge-opcua".startswith(only):
        return
    each = 20 if bench.small else 200
    with tempfile.TemporaryDirectory() as folder, PlantServer(Path(folder) / "plant.log") as server:
        server.do("add_many", names=OPCUA_ITEMS)
        peer = Against("asyncua's own client")
        said = f"{OPCUA_ITEMS} items, {OPCUA_ITEMS * each} values a round, published every {OPCUA_PUBLISHING_S} s"
        yield measure("edge-opcua", "values/s", lambda: _ours(server, each), {peer: lambda: _theirs(server, each)}, bench.rounds, said)


def _ours(server: PlantServer, each: int) -> Sample:
    start = (Start("p:Line1", "line1", only=("V*",)),)
    settings = OpcUaSettings(server.url, "bench", start, {"p": URI}, publishing_s=OPCUA_PUBLISHING_S, queue=10_000)
    source = OpcUaSource(settings)
    source.open(lambda name: None)

    def take(count: int) -> None:
        found, until = 0, time.monotonic() + OPCUA_WAIT_S
        while found < count:
            assert time.monotonic() < until, f"{found} of {count} values came"
            for one in source.receive(500, 1.0):
                found += len(one.readings)
                one.done()

    try:
        take(OPCUA_ITEMS)
        server.do("later", do="burst", names=OPCUA_ITEMS, each=each)
        gc.collect()
        begun = time.process_time()
        take(OPCUA_ITEMS * each)
        took = time.process_time() - begun
    finally:
        source.close()
        server.do("forget")
    return Sample(OPCUA_ITEMS * each / took)


def _theirs(server: PlantServer, each: int) -> Sample:
    return Sample(OPCUA_ITEMS * each / asyncio.run(_handled(server, each)))


async def _handled(server: PlantServer, each: int) -> float:
    """Processor's seconds for the same values in a handler."""
    from asyncua import Client, ua

    kept: list[tuple[str, Any, Any]] = []

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
            kept.append((node.nodeid, value, data.monitored_item.Value.SourceTimestamp))

    async def wait(count: int) -> None:
        until = time.monotonic() + OPCUA_WAIT_S
        while len(kept) < count:
            assert time.monotonic() < until, f"{len(kept)} of {count} values came"
            await asyncio.sleep(0.05)

    async with Client(server.url) as client:
        index = await client.get_namespace_index(URI)
        subscription = await client.create_subscription(1000 * OPCUA_PUBLISHING_S, Handler())
        nodes = [client.get_node(ua.NodeId(f"Line1.V{n}", index)) for n in range(OPCUA_ITEMS)]
        await subscription.subscribe_data_change(nodes, queuesize=10_000)
        await wait(OPCUA_ITEMS)
        server.do("later", do="burst", names=OPCUA_ITEMS, each=each)
        gc.collect()
        begun = time.process_time()
        await wait(OPCUA_ITEMS * (each + 1))
        return time.process_time() - begun
