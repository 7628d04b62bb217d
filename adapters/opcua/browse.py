"""Finding the variables of an OPC UA server below some starts, by browse names, with namespaces by their URIs."""

import fnmatch
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from asyncua import Client, ua

from adapters.formats.opcua_values import node_text
from adapters.opcua.settings import OpcUaSettings, Start
from hub import limits

A = TypeVar("A")
B = TypeVar("B")
_log = logging.getLogger(__name__)
_TOO_LARGE = (
    ua.uaerrors.BadTooManyOperations,
    ua.uaerrors.BadRequestTooLarge,
    ua.uaerrors.BadResponseTooLarge,
    ua.uaerrors.BadEncodingLimitsExceeded,
)
_PART = re.compile(r"(?:&.|[^/&])+")


@dataclass(frozen=True, slots=True)
class Found:
    """A variable: its tag, its node id with the namespace by URI, and whether the server keeps its history."""

    tag: str
    node: str
    history: bool


async def browse(client: Client, settings: OpcUaSettings, namespaces: Sequence[str]) -> list[Found]:
    """The variables below all starts, in the order of the starts and of the server; one that is reached twice counts once.

    Raises `UaError` for a start that is not there or for more than `limits.OPCUA_ITEMS_MAX`.
    """
    found: dict[str, tuple[str, ua.NodeId]] = {}
    nodes: set[str] = set()
    for start in settings.starts:
        for tag, node in await _below(client, start, settings, namespaces):
            text = node_text(node, namespaces)
            if text in nodes:
                continue
            nodes.add(text)
            found[tag if tag not in found else f"{tag}#{text}"] = text, node  # two of one name are told apart by their ids
            if len(found) > limits.OPCUA_ITEMS_MAX:
                raise ua.UaError(
                    f"has more than {limits.OPCUA_ITEMS_MAX} variables below the starts: name fewer with `only` or further starts"
                )
    readable = await _history(client, [node for _, node in found.values()])
    return [Found(tag, text, keeps) for (tag, (text, _)), keeps in zip(found.items(), readable, strict=True)]


async def _below(client: Client, start: Start, settings: OpcUaSettings, namespaces: Sequence[str]) -> list[tuple[str, ua.NodeId]]:
    root = await _start(client, start, settings, namespaces)
    kind = await client.get_node(root).read_attribute(ua.AttributeIds.NodeClass, raise_on_bad_status=False)
    if not kind.StatusCode.is_good():
        raise ua.UaError(f"has no node {start.node}: correct the start, or look at the server's address space")
    if kind.Value.Value == ua.NodeClass.Variable:
        name = (await client.get_node(root).read_browse_name()).Name
        return [(start.tag or name, root)]
    found, seen = [], {root}
    level: list[tuple[str, ua.NodeId]] = [("", root)]
    for _ in range(limits.OPCUA_DEPTH_MAX):
        deeper: list[tuple[str, ua.NodeId]] = []
        for path, reference in await _children(client, level):
            node = ua.NodeId(reference.NodeId.Identifier, reference.NodeId.NamespaceIndex, reference.NodeId.NodeIdType)
            if node in seen or reference.ReferenceTypeId == ua.NodeId(ua.ObjectIds.HasProperty):
                continue
            seen.add(node)
            below = f"{path}/{reference.BrowseName.Name}" if path else str(reference.BrowseName.Name)
            if reference.NodeClass == ua.NodeClass.Variable and _wanted(below, start):
                found.append((f"{start.tag}/{below}" if start.tag else below, node))
            deeper.append((below, node))
        if not deeper:
            break
        level = deeper
    return found


def _wanted(path: str, start: Start) -> bool:
    return (not start.only or any(fnmatch.fnmatchcase(path, one) for one in start.only)) and not any(
        fnmatch.fnmatchcase(path, one) for one in start.but
    )


async def _start(client: Client, start: Start, settings: OpcUaSettings, namespaces: Sequence[str]) -> ua.NodeId:
    """The node where browsing begins. Raises `UaError`."""
    if re.match(r"(nsu=[^;]*;)?[isgb]=", start.node):
        return node_of(start.node, namespaces)
    if start.node.startswith("ns="):
        raise ua.UaError(f"numbers its namespaces anew when it is started: name the URI in {start.node}, as nsu=URI;…")
    path = ua.RelativePath()
    for part in _PART.findall(start.node):
        prefix, name = "", part
        if cut := re.search(r"(?<!&):", part):
            prefix, name = part[: cut.start()], part[cut.end() :]
        uri = settings.namespaces.get(prefix) if prefix else ""
        if uri is None:
            raise ua.UaError(f"is asked for {start.node}, whose prefix {prefix} has no URI: set it in namespaces")
        if uri and uri not in namespaces:
            raise ua.UaError(f"does not know the namespace {uri}: look at what the server was given, or correct namespaces")
        element = ua.RelativePathElement()
        element.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
        element.IsInverse, element.IncludeSubtypes = False, True
        element.TargetName = ua.QualifiedName(re.sub(r"&(.)", r"\1", name), namespaces.index(uri) if uri else 0)
        path.Elements.append(element)
    (result,) = await client.translate_browsepaths(ua.NodeId(ua.ObjectIds.ObjectsFolder), [path])
    if not result.StatusCode.is_good() or not result.Targets:
        raise ua.UaError(
            f"has nothing at {start.node} ({result.StatusCode.name}): correct the start, or look at the server's address space"
        )
    target = result.Targets[0].TargetId
    return ua.NodeId(target.Identifier, target.NamespaceIndex, target.NodeIdType)


async def in_parts(asked: Sequence[A], ask: Callable[[Sequence[A]], Awaitable[Sequence[B]]]) -> list[B]:
    """The answers to many questions, in requests that are halved where the server says that they are too large."""
    found: list[B] = []
    size = limits.OPCUA_REQUEST_MAX
    while len(found) < len(asked):
        try:
            found += await ask(asked[len(found) : len(found) + size])
        except _TOO_LARGE:
            if size == 1:
                raise
            size //= 2
    return found


async def _children(client: Client, parents: Sequence[tuple[str, ua.NodeId]]) -> list[tuple[str, Any]]:
    """The references downwards of many nodes, each with its parent's path. One that cannot be browsed is told in the log."""
    session = client.uaclient.session

    async def ask(part: Sequence[tuple[str, ua.NodeId]]) -> list[list[Any]]:
        results = await session.browse(_browsing([node for _, node in part]))
        found = []
        for result in results:
            references, point = [*(result.References or ())], result.ContinuationPoint
            while point:
                (more,) = await session.browse_next(ua.BrowseNextParameters(ReleaseContinuationPoints=False, ContinuationPoints=[point]))
                more.StatusCode.check()
                references += more.References or ()
                point = more.ContinuationPoint
            found.append(references)
        for n, (one, result) in enumerate(zip(part, results, strict=True)):
            if result.StatusCode.value == ua.StatusCodes.BadNoContinuationPoints and len(part) > 1:
                (found[n],) = await ask([one])  # the server had no more of them while the others used them
            elif not result.StatusCode.is_good():
                _log.warning(
                    "%s: what is below %s cannot be browsed (%s)", client.server_url.geturl(), one[0] or one[1], result.StatusCode.name
                )
        return found

    children = await in_parts(parents, ask)
    return [(path, reference) for (path, _), references in zip(parents, children, strict=True) for reference in references]


def _browsing(nodes: Sequence[ua.NodeId]) -> ua.BrowseParameters:
    ask = ua.BrowseParameters(View=ua.ViewDescription(), RequestedMaxReferencesPerNode=0)
    ask.NodesToBrowse = [
        ua.BrowseDescription(
            NodeId=node,
            BrowseDirection=ua.BrowseDirection.Forward,
            ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
            IncludeSubtypes=True,
            NodeClassMask=ua.NodeClass.Object | ua.NodeClass.Variable,
            ResultMask=ua.BrowseResultMask.All,
        )
        for node in nodes
    ]
    return ask


async def _history(client: Client, nodes: Sequence[ua.NodeId]) -> list[bool]:
    """Whether the server lets us read the history of each."""
    session = client.uaclient.session
    levels = await in_parts(nodes, lambda part: session.read_attributes([*part], ua.AttributeIds.UserAccessLevel))
    keeps = await in_parts(nodes, lambda part: session.read_attributes([*part], ua.AttributeIds.Historizing))
    return [
        bool(level.Value and level.Value.Value and level.Value.Value & 1 << ua.AccessLevel.HistoryRead and kept.Value and kept.Value.Value)
        for level, kept in zip(levels, keeps, strict=True)
    ]


def node_of(text: str, namespaces: Sequence[str]) -> ua.NodeId:
    """A node id on this server, of one with its namespace by URI. Raises `UaError` when the server does not know the namespace."""
    if not text.startswith("nsu="):
        return ua.NodeId.from_string(text)
    uri, _, rest = text.removeprefix("nsu=").partition(";")
    if uri not in namespaces:
        raise ua.UaError(f"does not know the namespace {uri}: look at what the server was given, or correct the start")
    return ua.NodeId.from_string(f"ns={namespaces.index(uri)};{rest}")
