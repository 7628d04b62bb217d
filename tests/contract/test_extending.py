"""The worked examples of docs/extending.md do what the page says, each as one new file and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import sys, psycopg
from pathlib import Path
extra, owner = Path(sys.argv[1]), sys.argv[2]
import adapters, projections, events, events.upcasters
for package in (adapters, projections, events, events.upcasters):
    package.__path__.append(str(extra / package.__name__.replace(".", "/")))
import events.tooling, events.upcasters.tool_changed_1  # in the tree, importing events does this
from datetime import UTC, datetime
from hub.app.wiring import mappings, views
from hub.intake.delivery import Delivery
from hub.intake.door import Intake
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.store import Log
from replay.verify import verify
from tests.facts import as_role

migrate(owner)
body = b"BATCH;O1;A;L1;5;EA;2026-01-05T06:00:00Z\\nBATCH;O1;A;L2;2.5;EA;2026-01-05T07:00:00Z\\nBATCH;O1;A\\n"
tool = b'{"type": "tooling.tool_changed", "schema_version": 1, "source": "mes", "key": "T1", "occurred_at": "2026-01-05T06:00:00Z", "data": {"equipment": "M1", "tool": "T-9"}}'
with Log(as_role(owner, "hub_door")) as log:
    intake = Intake(log, mappings())
    acme, tooling = intake.take([Delivery(body, "cli", datetime.now(UTC)), Delivery(tool, "cli", datetime.now(UTC))])
    assert [line.outcome for line in acme.parts[0].lines] == ["accepted", "accepted", "quarantined"], acme
    assert acme.parts[0].lines[2].place == "line 3"
    assert tooling.outcome == "accepted", tooling
    stored = log.find("mes", "T1")
    assert (stored.event.reason, stored.event.version) == ("planned", 2)
(view,) = (v for v in views() if v.name == "output_by_order")
follower = Follower(as_role(owner, "hub_follow"), view)
follower.ensure()
while follower.step(1):
    pass
follower.close()
with psycopg.connect(owner) as connection:
    assert [(o, u, str(q)) for o, u, q, _ in connection.execute("select * from view_output_by_order.total")] == [("O1", "EA", "7.5")]
_, found = verify(as_role(owner, "hub_follow"), [view])
assert all(t.equal for t in found["output_by_order"].values())
print("extended")
"""


def test_each_example_is_one_new_file(tmp_path: Path, fresh_database: str) -> None:
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.DOTALL)
    assert [name for name, _ in blocks] == [
        "adapters/acme_mes.py",
        "events/tooling.py",
        "events/upcasters/tool_changed_1.py",
        "projections/output_by_order.py",
    ]
    for name, code in blocks:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, "utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), fresh_database], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "extended"
