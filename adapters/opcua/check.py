"""What `check` says of an OPC UA server: who it is, what is read there, and what it gives of what was asked."""

from collections.abc import Sequence

from adapters.opcua.line import Line
from adapters.opcua.settings import OpcUaSettings


def looked(s: OpcUaSettings) -> Sequence[str]:
    """Connect, look around, and leave nothing behind; a line for each thing. Raises `Unavailable` naming the remedy."""
    line = Line(s)
    try:
        line.open(None)
        name, theirs, ours = line.server()
        found = line.browse()
        line.subscribe()
        watched = line.monitor(list(enumerate((one.node for one in found), 1)))
    finally:
        line.close(end=True)
    ahead = (theirs - ours).total_seconds()
    how = "not encrypted" if s.security == "None" else f"{s.security}, {s.mode}"
    who = f"user {s.user}" if s.user else "no user"
    if s.user and s.security == "None":
        who += ", whose password is only as safe as the line"
    history = f"of {sum(one.history for one in found)} of them" if s.history else "not read (history is off)"
    lines = [
        f"{s.url}: {name}",
        f"security: {how}; {who}",
        f"items: {len(found)} below {len(s.starts)} start{'s' if len(s.starts) > 1 else ''}",
        f"history: {history}",
        f"clock: {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours",
    ]
    if kept := [one for one in watched if not one.why]:
        queue, sampling_s = min(one.queue for one in kept), max(one.sampling_s for one in kept)
        lines.append(f"queues: {s.queue_size} values of each item asked for, {queue} given; sampled every {sampling_s:g} s at best")
    lines += [f"not watched: {one.tag} ({result.why})" for one, result in zip(found, watched, strict=True) if result.why]
    return lines
