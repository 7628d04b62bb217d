"""Where the parts meet: finds mappings and views by name in their folders, and opens a hub on the database of a home."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import adapters
import hub.workflows
import projections
from events.errors import Refused
from hub.app.servers.postgres import Database, database
from hub.app.settings import Settings
from hub.intake.door import Appender, Intake
from hub.intake.mapping import Mapping, Partner
from hub.log.follow import Follower
from hub.log.migrate import migrate
from hub.log.store import Log
from hub.security.people import People
from hub.security.sessions import Sessions
from hub.workflows.process import Process, Workflow
from projections.base import TableView


@cache
def mappings() -> tuple[Mapping, ...]:
    """All mappings: the module attribute `MAPPING` of each module in adapters/, and of the module `mapping` of each package that has one."""
    names = (_module(m.name, m.ispkg) for m in pkgutil.iter_modules(adapters.__path__))
    modules = (importlib.import_module(name) for name in names if name)
    return tuple(module.MAPPING for module in modules if hasattr(module, "MAPPING"))


def _module(name: str, package: bool) -> str:
    """Where a mapping may be; "" for a package that has none: it is not imported to see, for some need seconds."""
    if not package:
        return f"adapters.{name}"
    there = any((Path(folder) / name / "mapping.py").is_file() for folder in adapters.__path__)
    return f"adapters.{name}.mapping" if there else ""


@cache
def processes() -> tuple[Process[Any], ...]:
    """All process managers in the order of their names: each subclass of `Process` that a module in hub/workflows/ defines."""
    found = {}
    for m in pkgutil.iter_modules(hub.workflows.__path__):
        module = importlib.import_module(f"hub.workflows.{m.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Process) and value.__module__ == module.__name__ and value is not Process:
                found[value.name] = value()
    return tuple(found[name] for name in sorted(found))


@cache
def views() -> tuple[TableView, ...]:
    """All views in the order of their names: each subclass of `TableView` that a module in projections/ defines, and each process manager's."""
    found: dict[str, TableView] = {process.name: Workflow(process) for process in processes()}
    for m in pkgutil.iter_modules(projections.__path__):
        module = importlib.import_module(f"projections.{m.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, TableView) and value.__module__ == module.__name__ and value is not TableView:
                if value.name in found:
                    raise TypeError(f"two views are called {value.name!r}")
                found[value.name] = value()
    return tuple(found[name] for name in sorted(found))


def named_views(names: Sequence[str]) -> tuple[TableView, ...]:
    """Views by name, all for no names. Raises `Refused` naming the unknown one."""
    known = {view.name: view for view in views()}
    for name in names:
        if name not in known:
            raise Refused(f"there is no view {name!r}: the views are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else tuple(known.values())


@dataclass
class Hub:
    """An open hub: URLs by role, and the parts that work on them."""

    settings: Settings
    database: Database
    sessions: Sessions = field(default_factory=Sessions, repr=False)

    @property
    def door_url(self) -> str:
        return self.database.url("hub_door")

    @property
    def follow_url(self) -> str:
        return self.database.url("hub_follow")

    @property
    def read_url(self) -> str:
        return self.database.url("hub_read")

    @property
    def people(self) -> People:
        """Who shows a token."""
        return People(self.database.url("hub_people"))

    @cached_property
    def log(self) -> Log:
        """The log, as the door."""
        return Log(self.door_url)

    def intake(self, log: Appender | None = None) -> Intake:
        """An intake of its own for one thread."""
        return Intake(log or self.log, mappings(), self.partners)

    @cached_property
    def partners(self) -> dict[str, Partner]:
        """Configured partners as mappings see them."""
        return {name: Partner(p.tzinfo, dict(p.units)) for name, p in self.settings.partners.items()}

    def followed(self) -> bool:
        """Whether anybody has ever made a view of this log."""
        return bool(self.log.select("select 1 from pg_namespace where starts_with(nspname, 'view_') limit 1", []))

    def catch_up(self, names: Sequence[str] = ()) -> int:
        """Bring views to the head as of the call, whoever else follows; the head. A command without a running hub follows by itself.

        Raises `Corrupt` where a view cannot be brought there, such as one that is beyond the head.
        """
        head = self.log.head()
        for view in named_views(names):
            follower = Follower(self.follow_url, view)
            try:
                follower.ensure()
                while follower.position() < head:
                    follower.step()
            finally:
                follower.close()
        return head


@contextlib.contextmanager
def open_hub(settings: Settings | None = None) -> Iterator[Hub]:
    """A hub for the time of a `with` block: its server runs, its schema is up to date. Raises `ConfigError`, `Unavailable`, `Refused`."""
    settings = settings or Settings.load()
    with database(settings) as db:
        migrate(db.owner_url, db.passwords)
        hub = Hub(settings, db)
        try:
            yield hub
        finally:
            hub.log.close()
