"""What process managers say of themselves."""

from typing import ClassVar

from events.base import Event, event
from events.vocabulary import Name, Text, Time


@event
class WorkflowWoken(Event):
    """The time that an instance of a process waits for has come: a timer is a fact, so that a replay sees it where it was."""

    type: ClassVar[str] = "integration.workflow_woken"
    process: Name
    instance: Text
    what: Name
    at: Time

    def stream(self) -> str:
        return f"workflow/{self.process}/{self.instance}"[:200]
