"""Named points: where a crash trial may stop the program. In service nothing is armed, and `reach` costs one global load and one compare.

`tests/crash` arms them in processes that it forks, to kill the program at exactly the seams between two effects: what is durable and what
is not yet, what the source knows and what it does not. They decide nothing and carry nothing. Each name of `POINTS` is reached in the code
once, and a trial in which one of them never was is not passed.
"""

from collections.abc import Callable

INTAKE = (
    "received",  # deliveries are in memory, nothing of them is in the database
    "delivery kept",  # their bytes are written, not flushed
    "mapped",  # facts and held lines are made, in memory
    "copying",  # events are on their way inside the append lock, the server waits for more of them
    "before commit",  # events are copied inside the append lock, the transaction is open
    "after commit",  # durable; nobody was told
    "conflict found",  # the facts are durable, what their conflicts refused is not yet
    "before acknowledgement",  # all of the batch is durable, no delivery is acknowledged
    "after acknowledgement",  # a delivery is acknowledged, those behind it in the batch are not
)
FOLLOW = (
    "view written",  # rows are changed, the position is not
    "position moved",  # both are, the transaction is open
    "view committed",  # both are committed, not flushed
)
RELAY = (
    "relay handed over",  # facts are with the Kafka client, the brokers have perhaps some of them
    "relay reported",  # the brokers have them, the position is not moved
    "relay moved",  # the position is committed, not flushed
)
EDGE = (
    "before spooled",  # entries are in the spool's transaction, which is open
    "spooled",  # they are durable at the edge; nobody was told
    "edge acknowledged",  # their source was told
    "batch read",  # entries are on their way to the hub
    "batch answered",  # the hub has them durably, the spool does not know
    "spool acknowledged",  # the spool knows; they may be dropped
)
WORKFLOWS = ("decided",)  # decisions are in the log, that they are is not noted
OUTBOX = (
    "posting claimed",  # an attempt is in the log, nothing has left
    "posting answered",  # the target has it, the log does not know
    "posting accepted",  # the log knows, it was not read back
)
POINTS = INTAKE + FOLLOW + RELAY

_armed: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Say that this point is reached."""
    if _armed is not None:
        _armed(name)


def arm(act: Callable[[str], None] | None) -> None:
    """Let `act` be called with the name of each point that this process reaches from now on; None disarms."""
    global _armed
    _armed = act
