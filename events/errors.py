"""The one exception tree of the hub; every error that leaves a module is one of these.

HubError
├── Refused       the caller's fault: malformed, unmappable, not allowed. Never retried as it is.
│   ├── Unmappable   a delivery, or a line of one, that no mapping understands: it is quarantined
│   └── ConfigError  settings or a home that cannot be used (hub/app/settings.py)
├── Unavailable   a server or a file is out of reach: try again, nothing was lost
└── Corrupt       what is stored contradicts itself: stop and call a person
"""


class HubError(Exception):
    """Base of all errors of the hub. `str(error)` names the object, the cause and the next step; `exit_code` is what a command ends with."""

    exit_code = 3


class Refused(HubError):
    """The caller's fault; repeating the same call gives the same answer."""

    exit_code = 2


class Unmappable(Refused):
    """A delivery or a line of one that cannot be mapped.

    `reason` says what is wrong in one sentence, `where` the place in the input ("line 7, segment SN1", "eventList[3].action").
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.where = where


class Unavailable(HubError):
    """Something needed is out of reach now; the same call may succeed later."""


class Corrupt(HubError):
    """What is stored contradicts itself. Nothing may go on from here without a person."""
