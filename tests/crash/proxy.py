"""A proxy between a log and its server that loses what is said at the moment of COMMIT, and then the connection.

It reads PostgreSQL's messages only as far as it must: a type byte and a length, behind the start-up message that has no type.
"""

import asyncio
import mmap
from collections.abc import Callable
from pathlib import Path

PASS, DROP_REPLY, DROP_REQUEST = 0, 1, 2


class Orders:
    """Memory shared with the proxy's process: what it shall do at the next COMMIT, and how often it did."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def give(self, order: int) -> None:
        """The order for the next COMMIT; PASS takes one back."""
        self._memory[0] = order

    @property
    def given(self) -> int:
        """The order that was not yet carried out, or PASS."""
        return self._memory[0]


class Messages:
    """Cuts a stream of bytes into whole messages."""

    def __init__(self, *, startup: bool) -> None:
        self._bytes = b""
        self._typeless = startup

    def feed(self, more: bytes) -> list[bytes]:
        """The messages that are whole now, each with its type and length."""
        self._bytes += more
        found: list[bytes] = []
        while True:
            at = 0 if self._typeless else 1
            if len(self._bytes) < at + 4:
                return found
            end = at + int.from_bytes(self._bytes[at : at + 4], "big")
            if len(self._bytes) < end:
                return found
            found.append(self._bytes[:end])
            self._bytes, self._typeless = self._bytes[end:], False


def is_commit_request(message: bytes) -> bool:
    """Query or Parse with COMMIT as its statement."""
    return message[:1] in (b"Q", b"P") and message[5:].replace(b"\0", b"").strip().upper() == b"COMMIT"


def is_commit_reply(message: bytes) -> bool:
    """CommandComplete of COMMIT: from here on the transaction is durable, whoever knows it."""
    return message[:1] == b"C" and message[5:] == b"COMMIT\0"


def run_proxy(listen: Path, server: Path, orders: Orders) -> None:
    """Serve until killed."""
    asyncio.run(_serve(listen, server, orders))


async def _serve(listen: Path, server: Path, orders: Orders) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_unix_connection(str(server))
        requests, replies = Messages(startup=True), Messages(startup=False)

        def lose(order: int, is_it: Callable[[bytes], bool], message: bytes) -> bool:
            if orders.given != order or not is_it(message):
                return False
            orders.give(PASS)
            return True

        async def pump(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, cut: Messages, order: int, is_it: Callable[[bytes], bool]
        ) -> None:
            while more := await source.read(65536):
                for message in cut.feed(more):
                    if lose(order, is_it, message):
                        return
                    target.write(message)
                await target.drain()

        ways = [
            asyncio.create_task(pump(reader, to_server[1], requests, DROP_REQUEST, is_commit_request)),
            asyncio.create_task(pump(to_server[0], writer, replies, DROP_REPLY, is_commit_reply)),
        ]
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, to_server[1]):
            end.transport.abort()  # also what was not read yet is lost, as when a network fails

    async with await asyncio.start_unix_server(connected, str(listen)) as serving:
        await serving.serve_forever()
