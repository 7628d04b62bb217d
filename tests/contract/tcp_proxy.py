"""A TCP proxy that a test cuts: refused and dropped, or half open (everything is accepted and nothing said), for any protocol."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, Self

HOST = "127.0.0.1"


class Proxy:
    """Listens on a free port of this machine and passes bytes to `port` until told otherwise; in a thread of its own."""

    def __init__(self, port: int) -> None:
        self.target, self.port = port, 0
        self.connections = 0  # that were taken since the start
        self._way: Literal["pass", "cut", "hold"] = "pass"
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def cut(self) -> None:
        """End every connection at once and refuse new ones."""
        self._do(self._turn("cut"))

    def hold(self) -> None:
        """Say nothing more, take new connections, and lose what they say."""
        self._do(self._turn("hold"))

    def mend(self) -> None:
        """Pass again; a connection that was held is gone."""
        self._do(self._turn("pass"))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _turn(self, way: Literal["pass", "cut", "hold"]) -> None:
        before, self._way = self._way, way
        if way == "cut" or before == "hold":
            for writer in list(self._open):
                writer.transport.abort()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        ends = [(reader, writer)]
        try:
            if self._way == "cut":
                return
            if self._way == "pass":
                ends.append(await asyncio.open_connection(HOST, self.target))
                self._open.add(ends[1][1])
                ways = [self._pump(reader, ends[1][1]), self._pump(ends[1][0], writer)]
            else:
                ways = [self._pump(reader, None)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            self._pumps.update(tasks)
            _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._pumps.difference_update(tasks)
        except OSError:
            return  # nobody there: as without a proxy
        finally:
            for _, end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter | None) -> None:
        with contextlib.suppress(OSError):
            while more := await source.read(65536):
                if self._way == "pass" and target is not None:
                    target.write(more)
                    await target.drain()
