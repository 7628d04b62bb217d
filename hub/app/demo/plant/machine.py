"""The machines of the simulated plant behind an OPC UA server: a winder and a press with state, counters, temperature and what is in work.

    Objects/Machines/<name>/State (PackML's number), Parts, Scrap (UInt16, after 999 comes 0), Temperature (Double, °C), Order, Lot (String)

What they do comes from the seed; when, from the clock. A change is written to the log before it is served, with the time it is served with:
{"tag", "value", "at"}, a line each. A restart is a power cut: counters begin again, and what the server kept of histories is gone.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

URI = "http://milldrive.example/machines"
STOPPED, STARTING, IDLE, EXECUTE, ABORTED, HELD = 2, 3, 4, 6, 9, 11  # PackML
ROLLOVER = 1000
WARM, COLD, HOT = 78.0, 24.0, 97.0  # °C: at work, at rest, when something is wrong
TICK_S = 0.2
HISTORY_MAX = 100_000  # values that are kept of each variable
CYCLES = {"WINDER-1": 9.0, "PRESS-2": 4.0}  # seconds a part
PARTS_PER_ORDER = 60


@dataclass(slots=True)
class Machine:
    """One machine; `step` moves it on by some seconds of its own time."""

    name: str
    chance: random.Random
    cycle_s: float
    work: Sequence[tuple[str, str]] = ()  # orders and lots, one after the other, again and again
    cut: bool = False  # its power was cut: counters begin at 0
    values: dict[str, Any] = field(default_factory=dict)
    _left_s: float = 0.0  # in this state
    _part_s: float = 0.0  # of the part in work
    _made: int = 0

    def __post_init__(self) -> None:
        parts = 0 if self.cut else self.chance.randrange(ROLLOVER - 30, ROLLOVER)  # the first roll-over is not far
        self.values = {"State": IDLE, "Parts": parts, "Scrap": 0, "Temperature": COLD, "Order": "", "Lot": ""}
        self._left_s = self.chance.uniform(1, 10)

    def step(self, seconds: float) -> dict[str, Any]:
        """What has changed."""
        before = dict(self.values)
        self._left_s -= seconds
        if self.values["State"] == EXECUTE:
            self._part_s += seconds
            while self._part_s >= self.cycle_s:
                self._part_s -= self.cycle_s
                self._part()
        if self._left_s <= 0:
            self._turn()
        aim = WARM if self.values["State"] == EXECUTE else HOT if self.values["State"] == ABORTED else COLD
        warmth = self.values["Temperature"] + (aim - self.values["Temperature"]) * min(1.0, seconds / 40)
        self.values["Temperature"] = round(warmth + self.chance.gauss(0, 0.15), 1)
        return {name: value for name, value in self.values.items() if value != before[name]}

    def _part(self) -> None:
        if self._made % PARTS_PER_ORDER == 0 and self.work:
            self.values["Order"], self.values["Lot"] = self.work[self._made // PARTS_PER_ORDER % len(self.work)]
        self._made += 1
        counter = "Scrap" if self.chance.random() < 0.03 else "Parts"
        self.values[counter] = (self.values[counter] + 1) % ROLLOVER

    def _turn(self) -> None:
        """The next state, and for how long."""
        state = self.values["State"]
        if state in (IDLE, HELD, STOPPED):
            self.values["State"], self._left_s = STARTING, self.chance.uniform(3, 8)
        elif state == STARTING:
            self.values["State"], self._left_s = EXECUTE, self.chance.uniform(120, 900)
        elif state == ABORTED:
            self.values["State"], self._left_s = STOPPED, self.chance.uniform(20, 60)
        else:
            self.values["State"] = self.chance.choices((HELD, STOPPED, ABORTED), (6, 3, 1))[0]
            self._left_s = self.chance.uniform(15, 180)


def machines(seed: int, work: Mapping[str, Sequence[tuple[str, str]]] | None = None, *, cut: bool = False) -> list[Machine]:
    """All machines, as they stand when they are switched on, or on again after a power cut; `work`: orders and lots by machine."""
    return [Machine(name, random.Random(f"{seed}/{name}"), cycle_s, (work or {}).get(name, ()), cut) for name, cycle_s in CYCLES.items()]


async def serve(url: str, plant: Sequence[Machine], speed: float, log: TextIO | None, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; `speed` is how much faster than the clock the machines work."""
    from asyncua import Server, ua

    server = Server()
    await server.init()
    server.set_endpoint(url)
    server.set_server_name("Milldrive machines")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(URI)
    kinds = {name: ua.VariantType[kind] for name, kind in (("State", "Int32"), ("Parts", "UInt16"), ("Scrap", "UInt16"))}
    folder = await server.nodes.objects.add_folder(ua.NodeId("Machines", index), ua.QualifiedName("Machines", index))
    nodes: dict[tuple[str, str], Any] = {}

    async def put(machine: Machine, name: str, value: Any) -> None:
        at = datetime.now(UTC)
        if log is not None:
            log.write(json.dumps({"tag": f"{machine.name}/{name}", "value": value, "at": at.isoformat()}) + "\n")
            log.flush()
        variant = ua.Variant(value, kinds.get(name))
        await server.write_attribute_value(nodes[machine.name, name].nodeid, ua.DataValue(variant, ua.StatusCode(0), at, at))

    for machine in plant:
        parent = await folder.add_object(ua.NodeId(machine.name, index), ua.QualifiedName(machine.name, index))
        for name, value in machine.values.items():
            identifier = ua.NodeId(f"{machine.name}.{name}", index)
            nodes[machine.name, name] = await parent.add_variable(
                identifier, ua.QualifiedName(name, index), ua.Variant(value, kinds.get(name))
            )
            await put(machine, name, value)  # nobody ever sees one that is not in the log
    async with server:
        for node in nodes.values():
            await server.historize_node_data_change(node, timedelta(days=7), HISTORY_MAX)
        last = time.monotonic()
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), TICK_S)
            except TimeoutError:
                pass
            now = time.monotonic()
            for machine in plant:
                for name, value in machine.step((now - last) * speed).items():
                    await put(machine, name, value)
            last = now


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hub.app.demo.plant.machine", description="The machines of the simulated plant, over OPC UA."
    )
    parser.add_argument("--url", default="opc.tcp://127.0.0.1:4840/machines")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster than the clock they work")
    parser.add_argument("--work", action="append", default=[], metavar="MACHINE:ORDER:LOT", help="what one works on next; may be repeated")
    parser.add_argument("--log", type=Path, help="where every change is written before it is served")
    given = parser.parse_args()
    work: dict[str, list[tuple[str, str]]] = {}
    for name, order, lot in (one.split(":", 2) for one in given.work):
        work.setdefault(name, []).append((order, lot))

    async def run() -> None:
        stop = asyncio.Event()
        for one in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(one, stop.set)
        cut = bool(given.log) and given.log.exists()  # they were on before
        log = given.log.open("a", encoding="utf-8") if given.log else None
        try:
            await serve(given.url, machines(given.seed, work, cut=cut), given.speed, log, stop)
        finally:
            if log is not None:
                log.close()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
