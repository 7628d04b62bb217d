"""OPC UA's far side for the contract suite: an asyncua server in a process of its own, told on its standard input what to do.

`python -m tests.contract.opcua_plant SETTINGS` (JSON); then one command a line, one answer a line.
"""

import asyncio
import functools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asyncua import Server, ua
from asyncua.common.connection import SecureConnection
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.history import HistoryDict
from asyncua.server.user_managers import UserManager

from hub.app.servers.process import free_port

HOST = "127.0.0.1"
URI = "http://plant.example/line1"
_ROOT = Path(__file__).resolve().parents[2]


# -- the server's process ---------------------------------------------------------------------------------------------------------------


class _Users(UserManager):  # type: ignore[misc]  # the library's classes have no types here
    def __init__(self, name: str, password: str) -> None:
        self._name, self._password = name, password

    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        return User(role=UserRole.User, name=username) if (username, password) == (self._name, self._password) else None


def _short_lived(most_ms: int) -> None:
    """Grant secure channels no longer than this; the library grants what is asked for."""
    open_ = SecureConnection.open

    def granted(self: Any, params: Any, server: Any) -> Any:
        params.RequestedLifetime = min(params.RequestedLifetime, most_ms)
        return open_(self, params, server)

    SecureConnection.open = granted


class _History(HistoryDict):  # type: ignore[misc]
    """The library's, with a past that was never said, and answers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.node: Any = None
        self.first, self.count, self.begin, self.every_s = 0, 0, datetime.now(UTC), 1.0
        self.answers: list[str] = []  # of the next reads: "" as it is, "nothing yet", "none", "late 3.5", or the name of a status code
        self.read = 0

    async def read_node_history(self, node_id: Any, start: Any, end: Any, nb_values: int) -> Any:
        if node_id != self.node or not self.count:
            return await super().read_node_history(node_id, start, end, nb_values)
        most = min(nb_values or self.max_history_data_response_size, self.max_history_data_response_size)
        from_ = max(0, math.ceil(round((start - self.begin).total_seconds() / self.every_s, 6)))
        found: list[Any] = []
        for n in range(from_, self.count):
            at = self.begin + timedelta(seconds=n * self.every_s)
            if at > end:
                break
            if len(found) == most:
                return found, at
            found.append(ua.DataValue(ua.Variant(self.first + n, ua.VariantType.Int64), ua.StatusCode(0), at, at))
        recorded, more = await super().read_node_history(node_id, start, end, most - len(found))
        return found + [
            one for one in recorded if one.SourceTimestamp > self.begin + timedelta(seconds=(self.count - 1) * self.every_s)
        ], more

    async def answered(self, read: Callable[[Any], Awaitable[list[Any]]], params: Any) -> list[Any]:
        self.read += 1
        answer = self.answers.pop(0) if self.answers else ""
        if answer.startswith("late"):
            await asyncio.sleep(float(answer.split()[1]))
        elif answer.startswith("fault"):
            raise ua.UaStatusCodeError(getattr(ua.StatusCodes, answer.split()[1]))
        elif answer == "nothing yet":  # of one that will say more with the point that it gives
            point = ua.ua_binary.Primitives.DateTime.pack(params.HistoryReadDetails.StartTime)
            return [ua.HistoryReadResult(HistoryData=ua.HistoryData(), ContinuationPoint=params.NodesToRead[0].ContinuationPoint or point)]
        elif answer == "none":
            return [ua.HistoryReadResult(HistoryData=ua.HistoryData())]
        elif answer:
            return [ua.HistoryReadResult(StatusCode=ua.StatusCode(getattr(ua.StatusCodes, answer)), HistoryData=ua.HistoryData())]
        return await read(params)


class _Plant:
    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._said = 0
        self._last = datetime.now(UTC)
        self._nodes: dict[str, Any] = {}

    async def run(self) -> None:
        s = self._settings
        server = Server(user_manager=_Users(s["user"], s["password"]) if s.get("user") else None)
        await server.init()
        server.set_endpoint(f"opc.tcp://{HOST}:{s['port']}/plant")
        server.set_server_name("Contract plant")
        policy = ua.SecurityPolicyType.NoSecurity
        if s.get("certificate"):
            policy = ua.SecurityPolicyType[f"Basic256Sha256_{s.get('mode', 'SignAndEncrypt')}"]
        server.set_security_policy([policy])
        if s.get("user"):
            server.set_identity_tokens([ua.UserNameIdentityToken])
        if s.get("certificate"):
            await server.set_application_uri("urn:plant.example:server")
            await server.load_certificate(Path(s["certificate"]))
            await server.load_private_key(Path(s["key"]))
        if s.get("lifetime_ms"):
            _short_lived(s["lifetime_ms"])
        if s.get("unacknowledged"):
            server.iserver.max_unacked_messages_per_subscription = s["unacknowledged"]
        self._history, manager = _History(), server.iserver.history_manager
        manager.set_storage(self._history)
        manager.read_history = functools.partial(self._history.answered, manager.read_history)
        if s.get("history_page"):
            self._history.max_history_data_response_size = s["history_page"]
        for n in range(s.get("before", 0)):
            await server.register_namespace(f"http://other.example/{n}")
        index = await server.register_namespace(URI)
        self._index, self._server = index, server
        self._line = await server.nodes.objects.add_object(index, "Line1")
        await self.add("Count", s.get("number", 0))
        await self.add("Idle", 7)
        async with server:
            if s.get("history"):
                for node in self._nodes.values():
                    await server.historize_node_data_change(node, count=s.get("history_count", 0))
            print(json.dumps({"ready": True}), flush=True)
            await self._obey()

    async def add(self, name: str, value: Any) -> None:
        node = await self._line.add_variable(ua.NodeId(f"Line1.{name}", self._index), ua.QualifiedName(name, self._index), value)
        self._nodes[name] = node

    async def _obey(self) -> None:
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

        def read() -> None:  # a thread, so that the loop goes on serving
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

        threading.Thread(target=read, daemon=True).start()
        while line := await lines.get():
            said = json.loads(line)
            print(json.dumps(await getattr(self, said["command"])(**said["given"])), flush=True)

    async def write(self, name: str, value: Any, kind: str, at: str | None = None, status: int = 0) -> str:
        when = datetime.fromisoformat(at) if at else max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        self._last = when
        variant = ua.Variant(value, ua.VariantType[kind])
        data = ua.DataValue(variant, ua.StatusCode(status), when, when)
        result = await self._server.iserver.aspace.write_attribute_value(self._nodes[name].nodeid, ua.AttributeIds.Value, data)
        result.check()
        return when.isoformat()

    async def say(self, first: int, count: int, every_s: float) -> dict[int, str]:
        found = {}
        for n in range(first, first + count):
            found[n] = await self.write("Count", n, "Int64")
            await asyncio.sleep(every_s)
        await asyncio.sleep(0)
        return found

    async def past(self, first: int, begin: str, every_s: float, count: int) -> list[str]:
        """Numbers that the history has from a time on, though nobody said them; the last of them is the value. The times of the first and the last."""
        history = self._history
        history.node, history.first, history.count, history.every_s = self._nodes["Count"].nodeid, first, count, every_s
        history.begin = datetime.fromisoformat(begin)
        return [
            begin,
            await self.write("Count", first + count - 1, "Int64", (history.begin + timedelta(seconds=(count - 1) * every_s)).isoformat()),
        ]

    async def answers(self, next_: Sequence[str]) -> int:
        """What the next reads of history are answered with (`_History.answers`); how many were read so far."""
        self._history.answers = list(next_)
        return self._history.read

    async def last(self) -> int:
        return int(await self._nodes["Count"].read_value())

    async def burst(self, names: int, each: int) -> int:
        """Values as fast as they can be written, for measuring."""
        self._run = getattr(self, "_run", 0) + each  # never a value that it had
        for n in range(self._run, self._run + each):
            for name in range(names):
                await self.write(f"V{name}", n, "Int64")
            await asyncio.sleep(0)
        return names * each

    async def later(self, do: str, **arguments: Any) -> bool:
        """Begin with something and answer at once."""
        self._task = asyncio.create_task(getattr(self, do)(**arguments))
        return True

    async def add_many(self, names: int) -> int:
        for name in range(names):
            await self.add(f"V{name}", 0)
        return names

    async def add_types(self) -> int:
        """A variable of each type, by name: see `tests/contract/test_opcua.py`."""
        from tests.contract.opcua_types import VALUES  # not before: it is for one test

        for name, variant in VALUES.items():
            node = await self._line.add_variable(ua.NodeId(f"Line1.{name}", self._index), ua.QualifiedName(name, self._index), variant)
            self._nodes[name] = node
        return len(VALUES)

    async def remove(self, name: str) -> bool:
        await self._server.delete_nodes([self._nodes.pop(name)])
        return True

    async def put_back(self, name: str, value: Any) -> bool:
        await self.add(name, value)
        return True

    async def sessions(self) -> int:
        return len(self._server.iserver._external_sessions)

    async def unconfirmed(self) -> int:
        """Messages that the server keeps because nobody has confirmed them."""
        subscriptions = self._server.iserver.subscription_service.subscriptions.values()
        return sum(len(one._not_acknowledged_results) for one in subscriptions if one.pub_request_callback)

    async def forget(self) -> int:
        """End all sessions and their subscriptions, as a server does whose patience is over."""
        sessions = list(self._server.iserver._external_sessions.values())
        for session in sessions:
            await session.close_session(True)
        return len(sessions)


# -- its handle in the test ---------------------------------------------------------------------------------------------------------------


class PlantServer:
    """The process. `settings`: port, history, history_count, before (namespaces before ours), certificate, key, user, password, …"""

    def __init__(
        self,
        log: Path,
        argv: Sequence[str] = (sys.executable, "-m", "tests.contract.opcua_plant"),
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = {"port": free_port(), **settings}
        self._log, self._argv, self._environment = log, list(argv), {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None

    @property
    def port(self) -> int:
        return int(self.settings["port"])

    @property
    def url(self) -> str:
        return f"opc.tcp://{HOST}:{self.port}/plant"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def start(self, **changed: Any) -> None:
        self.settings |= changed
        argv = [*self._argv, json.dumps(self.settings)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                argv, cwd=_ROOT, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._answer() == {"ready": True}

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def do(self, command: str, /, **arguments: Any) -> Any:
        """Let it do something and wait until it is done."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, "given": arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        return json.loads(line)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(_Plant(json.loads(sys.argv[1])).run())
