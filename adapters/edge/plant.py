"""What the tags of a plant mean: equipment, and the rules by which an edge makes facts of readings. Configuration, validated when it is made."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

from events.vocabulary import Exact, Name, Unit

_STRICT = ConfigDict(extra="forbid")
_RuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,60}$")]
_Version = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0, le=86400 * 30)]
UNKNOWN = "Unknown"  # the state of equipment of which nothing good is heard


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Rule:
    """A rule has a name for ever and a version that goes up with its meaning; its facts name both."""

    name: _RuleName
    version: _Version = 1

    @property
    def id(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DowntimeRule(Rule):
    """Equipment is down when it was in no state of `running` or `planned` for `after_s` seconds. `Unknown` neither begins nor ends it."""

    after_s: _Seconds
    running: tuple[Name, ...] = ("Execute",)
    planned: tuple[Name, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StateRule(Rule):
    """A tag's value is the state of the equipment, by a table: `{"0": "Stopped", "6": "Execute", "true": "Execute"}`.

    A value that is not in the table is `otherwise`, or is counted as unmapped and changes nothing. A state counts, as of when it began, once it
    has held for `settle_s`; late readings are not settled.
    """

    kind: Literal["state"] = "state"
    states: dict[str, Name]
    otherwise: Name | None = None
    settle_s: _Seconds = 0
    unknown_when_bad: bool = False
    downtime: DowntimeRule | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CountRule(Rule):
    """A tag is a totaliser of `unit`. One report a change, or one for all changes of `every_s`; what is in process when it changes ends a report.

    A totaliser that falls rolled over where `rolls_at` (one more than its largest value) is given and it would have counted at most a quarter of
    its range to come around to where it stands; else it was reset.
    """

    kind: Literal["count"] = "count"
    counter: Name
    unit: Unit = "EA"
    rejected: bool = False
    every_s: _Seconds = 0
    rolls_at: Exact | None = None
    rolls_to: Exact = Decimal(0)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LimitRule(Rule):
    """A tag is a measured value. It is beyond a limit above `high` or below `low`, and back when it is `dead_band` within it."""

    kind: Literal["limit"] = "limit"
    high: Exact | None = None
    low: Exact | None = None
    dead_band: Annotated[Exact, Field(ge=0)] = Decimal(0)
    unit: Unit | None = None

    def __post_init__(self) -> None:
        if self.high is None and self.low is None:
            raise ValueError(f"the rule {self.name} has neither high nor low")
        if self.high is not None and self.low is not None and self.high - self.dead_band < self.low + self.dead_band:
            raise ValueError(f"the rule {self.name} leaves no value between its limits: low, high and dead_band contradict each other")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ContextRule(Rule):
    """A tag says what the equipment works on (or why it stands): its values are names as they come, those in `none` mean that there is none."""

    kind: Literal["context"] = "context"
    field: Literal["order", "item", "lot", "reason"]
    none: tuple[str, ...] = ("",)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClockRule(Rule):
    """How far the clock of a producer may be from the edge's: ahead at once, behind (or set back) after it has stayed so for `confirm_s`."""

    name: _RuleName = "clock"
    bound_s: Annotated[float, Field(gt=0)] = 5.0
    confirm_s: _Seconds = 10.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SequenceRule(Rule):
    """What is known of the producers' own sequence numbers: how many there are before they begin again (`wraps`: 256 for 0 to 255), at which
    number a producer that was restarted begins, and after how many seconds without a word it is silent. None: that does not happen."""

    name: _RuleName = "sequence"
    producers: str = "**"
    wraps: Annotated[int, Field(ge=4)] | None = None
    restarts_at: Annotated[int, Field(ge=0)] | None = None
    silent_s: Annotated[float, Field(gt=0)] | None = None


TagRule = Annotated[StateRule | CountRule | LimitRule | ContextRule, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Tags:
    """Which tags the rules are for, and whose: `*` stands for anything within a level, `**` for anything, `{name}` for a level that the path of
    the equipment (ISA-95: site/area/work center/work unit) takes up."""

    tags: Annotated[str, StringConstraints(min_length=1)]
    equipment: Annotated[str, StringConstraints(min_length=1)]
    producers: str = "**"
    rules: Annotated[tuple[TagRule, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        if unknown := set(_NAMED.findall(self.equipment)) - set(_NAMED.findall(self.tags)):
            raise ValueError(f"the equipment {self.equipment!r} takes up {sorted(unknown)}, which the tags {self.tags!r} do not name")
        if not 1 <= len(levels := self.equipment.split("/")) <= 4 or not all(levels):
            raise ValueError(f"the equipment {self.equipment!r} is no site/area/work center/work unit: one to four levels, none empty")
        pattern(self.tags), pattern(self.producers)

    def equipment_of(self, match: re.Match[str]) -> str:
        """The equipment of a tag that matched."""
        return _NAMED.sub(lambda name: match[name[1]], self.equipment)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Plant:
    """All that an edge knows of the plant it stands in."""

    zone: str = "UTC"
    tags: tuple[Tags, ...] = ()
    clock: ClockRule | None = ClockRule()
    sequences: tuple[SequenceRule, ...] = (SequenceRule(),)

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"the time zone {self.zone!r} is not known: name one such as Europe/Berlin") from error
        known: dict[str, Rule] = {}
        for rule in self.rules():
            if known.setdefault(rule.name, rule) != rule:
                raise ValueError(f"the rule {rule.name} is there twice and not the same: give one of them another name")

    def rules(self) -> Iterator[Rule]:
        """Every rule of a tag; one may be there for several."""
        for entry in self.tags:
            for rule in entry.rules:
                yield rule
                if isinstance(rule, StateRule) and rule.downtime:
                    yield rule.downtime


_NAMED = re.compile(r"\{(\w+)\}")
_WILD = re.compile(r"(\{\w+\}|\*\*|\*)")


def pattern(text: str) -> re.Pattern[str]:
    """The regular expression of a pattern of tags or producers. Raises `ValueError` where it names a level twice."""
    parts = []
    for part in _WILD.split(text):
        if named := _NAMED.fullmatch(part):
            parts.append(f"(?P<{named[1]}>[^/]+)")
        else:
            parts.append({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise ValueError(f"the pattern {text!r} cannot be used: {error}") from error
