"""The suppliers of the simulated plant: X12 856 files dropped whole into the hub's watched folder."""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from hub.app.demo.plant.part import Part, arguments, stop_on_sigterm
from hub.app.demo.plant.plan import Message


class Folder:
    """A road through a folder: a file has arrived when it is no longer there."""

    window = 20

    def __init__(self, folder: Path, stop: threading.Event) -> None:
        self._folder = folder
        self._stop = stop
        self._waiting: dict[int, Path] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def offer(self, index: int, message: Message) -> None:
        """Write it beside its place under a hidden name, and give it its name when it is whole and on disk."""
        place = self._folder / message.target
        self._waiting[index] = place
        if place.exists():  # dropped before a restart, not taken yet
            return
        hidden = self._folder / f".{message.target}.part"
        with hidden.open("wb") as file:
            file.write(message.body)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(place)

    def acknowledged(self, wait_s: float) -> Sequence[int]:
        """The files that were taken."""
        gone = [index for index, place in self._waiting.items() if not place.exists()]
        for index in gone:
            del self._waiting[index]
        if not gone and wait_s > 0:
            self._stop.wait(wait_s)
        return gone

    def close(self) -> None:
        """Nothing to hang up."""


def main() -> int:
    """Run it."""
    parser = arguments("supplier", "a watched folder")
    parser.add_argument("--folder", type=Path, required=True, help="the folder that the hub watches")
    chosen = parser.parse_args()
    stop = stop_on_sigterm()
    return Part("supplier", chosen, stop).run(Folder(chosen.folder, stop))


if __name__ == "__main__":
    sys.exit(main())
