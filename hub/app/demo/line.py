"""A line between two places that can be cut from outside of both: a TCP proxy that obeys a word in a file.

`cut` ends all connections and refuses new ones; `hold` accepts and says nothing, as a half-open line does; any other word, such as `pass`, hands
everything on. An order may end by itself, whatever becomes of who gave it: then the moment of its end stands behind the word, on the clock that
the processes of a machine share.
Run as `python -m hub.app.demo.line LISTEN_PORT HOST:PORT FILE`.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

PASS, CUT, HOLD = "pass", "cut", "hold"
LOOK_S = 0.05


def order(file: Path, word: str, seconds: float | None = None) -> None:
    """Give the line its order, for so long or until the next one; it obeys within a tenth of a second."""
    fd, made = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    with os.fdopen(fd, "w") as text:
        text.write(word if seconds is None else f"{word} {time.monotonic() + seconds:.3f}")
    os.replace(made, file)


def ordered(file: Path) -> tuple[str, float]:
    """The order that holds now and how many seconds it still does, without end `inf`; `pass` where there is none or it is over."""
    try:
        word, _, until = file.read_text().strip().partition(" ")
        left = float(until) - time.monotonic() if until else float("inf")
    except (OSError, ValueError):  # what is no order orders nothing
        return PASS, float("inf")
    return (word, left) if word and left > 0 else (PASS, float("inf"))


class Line:
    """One proxy; `serve` until cancelled."""

    def __init__(self, port: int, target: tuple[str, int], file: Path) -> None:
        self._port, self._target, self._file = port, target, file
        self._open: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()

    async def serve(self) -> None:
        """Listen, and obey."""
        server = None
        while True:
            word, _ = ordered(self._file)
            if word == CUT:
                if server is not None:
                    server.close()
                    server = None
                for writer in list(self._open):
                    writer.transport.abort()
            elif server is None:
                server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
            if word in (CUT, HOLD):
                self._passes.clear()
            else:
                self._passes.set()
            await asyncio.sleep(LOOK_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._passes.wait()
            reader_there, writer_there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(writer_there)
        ways = [asyncio.create_task(self._pump(*way)) for way in ((reader, writer_there), (reader_there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, writer_there):
                end.transport.abort()
                self._open.discard(end)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while more := await source.read(65536):
                await self._passes.wait()
                target.write(more)
                await target.drain()


def main() -> None:
    """Run it."""
    port, target, file = sys.argv[1:4]
    host, _, number = target.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Line(int(port), (host, int(number)), Path(file)).serve())


if __name__ == "__main__":
    main()
