"""A line between two places that can be cut from outside of both: a TCP proxy that obeys a word in a file.

`pass` hands everything on; `cut` ends all connections and refuses new ones; `hold` accepts and says nothing, as a half-open line does.
Run as `python -m hub.app.demo.line LISTEN_PORT HOST:PORT FILE`.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

PASS, CUT, HOLD = "pass", "cut", "hold"
LOOK_S = 0.05


def order(file: Path, word: str) -> None:
    """Give the line its order; it obeys within a tenth of a second."""
    made = file.with_name(f".{file.name}.new")
    made.write_text(word)
    os.replace(made, file)


class Line:
    """One proxy; `serve` until cancelled."""

    def __init__(self, port: int, target: tuple[str, int], file: Path) -> None:
        self._port, self._target, self._file = port, target, file
        self._open: set[asyncio.StreamWriter] = set()
        self._word = PASS
        self._passes = asyncio.Event()

    async def serve(self) -> None:
        """Listen, and obey."""
        server = None
        while True:
            try:
                self._word = self._file.read_text().strip() or PASS
            except OSError:
                self._word = PASS
            if self._word == CUT:
                if server is not None:
                    server.close()
                    server = None
                for writer in list(self._open):
                    writer.transport.abort()
            elif server is None:
                server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
            if self._word == PASS:
                self._passes.set()
            else:
                self._passes.clear()
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
