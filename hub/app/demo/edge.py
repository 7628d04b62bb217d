"""The demo's edge: machines behind it that speak OPC UA and Sparkplug B, and a line to the hub that an outage cuts."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.app.demo import outage
from hub.app.demo.plant.plan import plan
from hub.app.home import Home, write_atomically
from hub.app.plants.authority import Authority
from hub.app.servers.process import free_port
from hub.app.supervisor import Child

EDGE = "demo-plant"
HOST_ID = "millwright"
PATIENCE_S = 10  # the edge is back at its broker by then
ORDERS = 10  # of the plan that the machines are seen to work on, again and again


@dataclass(frozen=True, slots=True)
class DemoEdge:
    """Ports and addresses of the demo's edge; `children` are its processes and its machines."""

    home: Home
    hub_port: int  # of the hub's listener for edges
    line_port: int
    http_port: int
    opcua_port: int
    mqtt: str  # host:port

    @staticmethod
    def prepared(home: Home, mqtt: str) -> "DemoEdge":
        """Enrol the edge and write its configuration; the ports are new each time, the spool is what it was."""
        made = DemoEdge(home, free_port(), free_port(), free_port(), free_port(), mqtt)
        Authority(home).hand_over(EDGE, home.spool)
        write_atomically(home.spool / "edge.yaml", made.yaml())
        outage.end(home)
        return made

    @property
    def listen(self) -> str:
        """Where the hub listens for it."""
        return f"127.0.0.1:{self.hub_port}"

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/"

    def yaml(self) -> str:
        """Its configuration, which people may read as an example."""
        return _YAML.format(edge=EDGE, line=self.line_port, http=self.http_port, opcua=self.opcua_port, mqtt=self.mqtt, host_id=HOST_ID)

    def children(self, env: dict[str, str], seed: int, state: Path) -> list[Child]:
        """The machines, the line, and the edge."""
        module = [sys.executable, "-m"]
        line = [*module, "hub.app.demo.line", str(self.line_port), self.listen, str(outage.order_file(self.home))]
        machine = [*module, "hub.app.demo.plant.machine", "--url", f"opc.tcp://127.0.0.1:{self.opcua_port}/machines"]
        machine += ["--seed", str(seed), "--log", str(state / "machine.jsonl"), *(f"--work={one}" for one in _work(seed))]
        packer = [*module, "hub.app.demo.plant.sparkplug_node", "--broker", self.mqtt, "--host-id", HOST_ID, "--seed", str(seed)]
        packer += ["--patience", str(PATIENCE_S), "--log", str(state / "packer.jsonl")]
        edge = [str(Path(sys.executable).with_name("hub")), "edge", "--config", str(self.home.spool / "edge.yaml")]
        return [
            Child(outage.LINE_ROLE, line, env),
            Child("plant-machine", machine, env),
            Child("plant-packer", packer, env),
            Child(outage.ROLES[outage.EDGE], edge, env, down=outage.is_down(self.home, outage.EDGE)),
        ]


def _work(seed: int) -> Iterator[str]:
    """MACHINE:ORDER:LOT for what the plant's plan says that its machines make."""
    for message in plan(seed, ORDERS).messages["mes"]:
        said = json.loads(message.body) if b"production.output_produced" in message.body else {}
        data = said.get("data", {}) if isinstance(said, dict) else {}
        lot = data.get("lot") or next((thing.get("lot") for thing in data.get("things", [])), None)
        if lot and data.get("equipment"):
            yield f"{data['equipment']}:{data['order']}:{lot}"


_YAML = """\
# Made by the demo, anew at each start.
edge: {edge}
hub:
  url: https://127.0.0.1:{line}       # the line that `hub simulate outage` cuts
spool:
  path: spool.db
  max: 256MiB
listen: 127.0.0.1:{http}
opcua:
  - name: machines
    url: opc.tcp://127.0.0.1:{opcua}/machines
    namespaces: {{m: "http://milldrive.example/machines"}}
    starts: [{{node: "m:Machines"}}]
    publishing_s: 0.5
sparkplug:
  - name: packing
    brokers: ["mqtt://{mqtt}"]
    host_id: {host_id}
    history_reach_s: 2                 # it says something each second: a history that begins later lacks something
plant:
  zone: Europe/Berlin
  tags:
    - tags: "{{machine}}/State"
      producers: machines
      equipment: "BERLIN/ASSEMBLY/LINE-1/{{machine}}"
      rules:
        - kind: state
          name: packml
          states: {{"2": Stopped, "3": Starting, "4": Idle, "6": Execute, "9": Aborted, "11": Held}}
          downtime: {{name: stands, after_s: 10}}
    - tags: "{{machine}}/Parts"
      producers: machines
      equipment: "BERLIN/ASSEMBLY/LINE-1/{{machine}}"
      rules: [{{kind: count, name: parts, counter: parts, rolls_at: "1000", every_s: 10}}]
    - tags: "{{machine}}/Scrap"
      producers: machines
      equipment: "BERLIN/ASSEMBLY/LINE-1/{{machine}}"
      rules: [{{kind: count, name: scrap, counter: scrap, rejected: true, rolls_at: "1000"}}]
    - tags: "{{machine}}/Temperature"
      producers: machines
      equipment: "BERLIN/ASSEMBLY/LINE-1/{{machine}}"
      rules: [{{kind: limit, name: heat, high: "90", dead_band: "2", unit: CEL}}]
    - tags: "{{machine}}/Order"
      producers: machines
      equipment: "BERLIN/ASSEMBLY/LINE-1/{{machine}}"
      rules: [{{kind: context, name: order, field: order}}]
    - tags: "{{machine}}/Lot"
      producers: machines
      equipment: "BERLIN/ASSEMBLY/LINE-1/{{machine}}"
      rules: [{{kind: context, name: lot, field: lot}}]
    - tags: "Packaging/*/{{machine}}/Status/State"
      producers: "Packaging/*"
      equipment: "BERLIN/PACKAGING/CELL-1/{{machine}}"
      rules:
        - kind: state
          name: packer-state
          states: {{Idle: Idle, Execute: Execute, Held: Held, Suspended: Suspended, Aborted: Aborted}}
          downtime: {{name: packer-stands, after_s: 10}}
    - tags: "Packaging/*/{{machine}}/Counters/Good"
      producers: "Packaging/*"
      equipment: "BERLIN/PACKAGING/CELL-1/{{machine}}"
      rules: [{{kind: count, name: cases, counter: good, every_s: 10}}]
    - tags: "Packaging/*/{{machine}}/Counters/Rejected"
      producers: "Packaging/*"
      equipment: "BERLIN/PACKAGING/CELL-1/{{machine}}"
      rules: [{{kind: count, name: rejects, counter: rejected, rejected: true, every_s: 10}}]
"""
