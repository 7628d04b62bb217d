"""All commands with their arguments; each imports what it needs only when it runs, so that `hub --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="hub",
    help="Millwright: every change from every system as an event in one log, every view a replayable projection of it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
events_app = typer.Typer(help="Read the log.", no_args_is_help=True)
quarantine_app = typer.Typer(
    help="What could not be mapped or contradicts what is known: kept whole, and sent through the door again.", no_args_is_help=True
)
replay_app = typer.Typer(help="Fold the log anew beside live traffic, compare, swap. Never sends anything.", no_args_is_help=True)
relay_app = typer.Typer(help="The relay that publishes the log on Kafka.", no_args_is_help=True)
edge_app = typer.Typer(help="A plant's edge: spools what its sources say and forwards it to the hub.", invoke_without_command=True)
app.add_typer(edge_app, name="edge")
simulate_app = typer.Typer(help="Let something go wrong in the demo, from outside of the hub.", no_args_is_help=True)
app.add_typer(simulate_app, name="simulate")
app.add_typer(events_app, name="events")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(replay_app, name="replay")
app.add_typer(relay_app, name="relay")
people_app = typer.Typer(
    help="Who may decide, and as what. For whoever owns this hub's home; HUB_TOKEN, where it is set, is recorded as who did it.",
    no_args_is_help=True,
)
app.add_typer(people_app, name="people")

Json = Annotated[bool, typer.Option("--json", help="Print JSON in the shape of docs/commands.md and nothing else.")]


@app.command()
def demo(
    headless: Annotated[
        bool, typer.Option(help="Run the plan to its end, check that each message is accounted for, print a summary.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="What the factory's history is made from.")] = 7,
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="Production orders of the finished product.")] = 20,
    fresh: Annotated[bool, typer.Option(help="Throw the home's data away and start anew.")] = False,
    sent_log: Annotated[Path | None, typer.Option(help="Write what the plant is about to send, a JSON object a line.")] = None,
    json_: Json = False,
) -> int:
    """A whole hub with a simulated plant on this machine: private PostgreSQL, MQTT broker, console."""
    from hub.app.demo.run import run_demo

    return run_demo(headless=headless, seed=seed, orders=orders, fresh=fresh, sent_log=sent_log, json_=json_)


@app.command()
def serve(json_: Json = False) -> int:
    """Run the hub: intake, views, API and console, under a supervisor, until SIGTERM or Ctrl-C."""
    from hub.app.serve import serve_hub

    return serve_hub(json_)


@app.command()
def intake(paths: Annotated[list[Path], typer.Argument(help="Files, or folders that are walked.")], json_: Json = False) -> int:
    """Take files of any supported format through the door; exit 1 if anything was quarantined or in conflict."""
    from hub.app.cli.intake import intake_paths

    return intake_paths(paths, json_)


@app.command()
def stock(
    accounts: Annotated[str, typer.Option(help="own: what stands in own locations; all: every account of the ledger.")] = "own",
    json_: Json = False,
) -> int:
    """What is where, from the double-entry ledger."""
    from hub.app.cli.lists import show_stock

    return show_stock(accounts, json_)


@app.command()
def trace(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Any lot, serial, SSCC, order, purchase order, ASN or shipment.")],
    forward: Annotated[bool, typer.Option("--forward", help="Only what it went into.")] = False,
    backward: Annotated[bool, typer.Option("--backward", help="Only what it came from.")] = False,
    json_: Json = False,
) -> int:
    """Where something came from and where it went, to the ends; exit 1 if the id is unknown or ambiguous."""
    from hub.app.cli.trace import show_trace

    return show_trace(id_, forward, backward, json_)


@app.command()
def exceptions(json_: Json = False) -> int:
    """What a person must look at: over-receipts, negative stock, unknown references, conflicts, variances."""
    from hub.app.cli.lists import show_exceptions

    return show_exceptions(json_)


@app.command()
def status(json_: Json = False) -> int:
    """Is data flowing, is anything stuck: processes, positions, lag, quarantine, exceptions."""
    from hub.app.cli.health import show_status

    return show_status(json_)


@app.command()
def doctor(json_: Json = False) -> int:
    """Check database, settings, rights, clock, disk and views, and say what to do; exit 1 if anything is wrong."""
    from hub.app.cli.health import show_doctor

    return show_doctor(json_)


@events_app.command("read")
def events_read(
    first: Annotated[int, typer.Option("--from", min=1, max=2**63 - 1, help="First position.")] = 1,
    stream: Annotated[str | None, typer.Option(help="Only this stream, e.g. order/PO-7.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this event type.")] = None,
    json_: Json = False,
) -> int:
    """Facts in the order of the log, up to its head."""
    from hub.app.cli.lists import read_events

    return read_events(first, stream, type_, json_)


@events_app.command("explain")
def events_explain(
    what: Annotated[str, typer.Argument(metavar="POSITION|KEY", help="A position, or a business key.")], json_: Json = False
) -> int:
    """One fact: where it came from, what it says, and every row of every view that it was the last to change."""
    from hub.app.cli.lists import explain_event

    return explain_event(what, json_)


@quarantine_app.command("list")
def quarantine_list(json_: Json = False) -> int:
    """Everything that is held: unmappable deliveries and lines, and conflicts."""
    from hub.app.cli.quarantine import show_list

    return show_list(json_)


@quarantine_app.command("show")
def quarantine_show(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    out: Annotated[Path | None, typer.Option(help="Write the delivery's bytes to this file.")] = None,
    json_: Json = False,
) -> int:
    """One held entry with its bytes, headers, error and place; exit 1 if there is none."""
    from hub.app.cli.quarantine import show_one

    return show_one(id_, out, json_)


@quarantine_app.command("redrive")
def quarantine_redrive(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]…")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything that is held.")] = False,
    json_: Json = False,
) -> int:
    """Send held deliveries or lines through the door again; exit 1 if anything stays held."""
    from hub.app.cli.quarantine import redrive

    return redrive(ids or [], all_, json_)


Views = Annotated[list[str] | None, typer.Argument(metavar="[VIEW]…")]
All = Annotated[bool, typer.Option("--all", help="All views.")]


@replay_app.command("rebuild")
def replay_rebuild(
    names: Views = None,
    all_: All = False,
    restart: Annotated[bool, typer.Option(help="Throw an interrupted rebuild away instead of going on with it.")] = False,
    json_: Json = False,
) -> int:
    """Fold the log into shadow tables beside the live views; an interrupted rebuild goes on where it stopped."""
    from hub.app.cli.replay import run_rebuild

    return run_rebuild(names or [], all_, restart, json_)


@replay_app.command("verify")
def replay_verify(names: Views = None, all_: All = False, json_: Json = False) -> int:
    """Compare live views with the log folded anew, every column; exit 1 and the differing rows named if they differ."""
    from hub.app.cli.replay import run_verify

    return run_verify(names or [], json_)


@replay_app.command("promote")
def replay_promote(names: Views = None, all_: All = False, json_: Json = False) -> int:
    """Make the rebuilt tables the live ones, by rename, in one transaction."""
    from hub.app.cli.replay import run_promote

    return run_promote(names or [], all_, json_)


@relay_app.command("restart")
def relay_restart(
    first: Annotated[int, typer.Option("--from", min=1, max=2**63 - 1, help="Position of the first fact to publish; 1: all of them.")],
    json_: Json = False,
) -> int:
    """Let the relay go on from another position, to the topic that is configured then; a running one notices."""
    from hub.app.cli.relay import restart_relay

    return restart_relay(first, json_)


Name = Annotated[str, typer.Argument(metavar="NAME")]
Role = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help="buyer, receiver, quality, planner, supervisor, auditor, administrator, or one of yours."),
]


@people_app.command("list")
def people_list(
    all_: Annotated[bool, typer.Option("--all", help="Also those whose access has ended.")] = False, json_: Json = False
) -> int:
    """Who has access: names, roles, since when, when their token was made and last used."""
    from hub.app.cli.people import show_people

    return show_people(all_, json_)


@people_app.command("add")
def people_add(name: Name, role: Role = None, json_: Json = False) -> int:
    """Give a person access and print their token, once."""
    from hub.app.cli.people import add

    return add(name, role or [], json_)


@people_app.command("role")
def people_role(
    name: Name,
    add: Annotated[list[str] | None, typer.Option("--add", metavar="ROLE")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="ROLE")] = None,
    json_: Json = False,
) -> int:
    """Give roles to a person, or take some away."""
    from hub.app.cli.people import change_roles

    return change_roles(name, add or [], remove or [], json_)


@people_app.command("rename")
def people_rename(name: Name, new: Annotated[str, typer.Argument(metavar="NEW")], json_: Json = False) -> int:
    """Give a person another name; they stay who they are, and the old name stays theirs."""
    from hub.app.cli.people import rename

    return rename(name, new, json_)


@people_app.command("token")
def people_token(name: Name, json_: Json = False) -> int:
    """Make a new token for a person and print it, once; the old one ends, and so do its sessions."""
    from hub.app.cli.people import renew

    return renew(name, json_)


@people_app.command("revoke")
def people_revoke(name: Name, json_: Json = False) -> int:
    """End a person's access, their token and its sessions."""
    from hub.app.cli.people import revoke

    return revoke(name, json_)


Config = Annotated[Path, typer.Option("--config", help="The edge's configuration.")]
EDGE_YAML = Path("edge.yaml")


@edge_app.callback(invoke_without_command=True)
def edge(context: typer.Context, config: Config = EDGE_YAML) -> int:
    """Run the edge until SIGTERM or Ctrl-C; needs no database."""
    if context.invoked_subcommand is not None:
        return 0
    from hub.app.cli.edge import run_edge

    return run_edge(config)


@edge_app.command("check")
def edge_check(config: Config = EDGE_YAML, json_: Json = False) -> int:
    """Read the configuration, try every connection, and say what was seen; exit 1 if one does not work."""
    from hub.app.cli.edge import check_edge

    return check_edge(config, json_)


@edge_app.command("status")
def edge_status(config: Config = EDGE_YAML, json_: Json = False) -> int:
    """What waits, how old it is, whether the line is up, how long the disk lasts; exit 1 if anything waits or is down."""
    from hub.app.cli.edge import show_edge

    return show_edge(config, json_)


@edge_app.command("drain")
def edge_drain(
    rate: Annotated[float, typer.Option(min=0, help="Entries a second, 0: as fast as the hub takes them.")] = 0.0,
    config: Config = EDGE_YAML,
    json_: Json = False,
) -> int:
    """Set how fast the backlog may leave, until the edge is started again."""
    from hub.app.cli.edge import drain_edge

    return drain_edge(config, rate, json_)


@edge_app.command("resend")
def edge_resend(
    lane: Annotated[str, typer.Argument(help="The lane, as `hub edge status` names it.")],
    first: Annotated[int, typer.Argument(metavar="FROM", min=1)],
    last: Annotated[int, typer.Argument(metavar="TO", min=1)],
    config: Config = EDGE_YAML,
    json_: Json = False,
) -> int:
    """Send entries that the hub has once more, as far as they are kept; exit 1 if some are not."""
    from hub.app.cli.edge import resend

    return resend(config, lane, first, last, json_)


@edge_app.command("devices")
def edge_devices(
    of: Annotated[str, typer.Argument(metavar="[NAME]", help="Those whose name begins so, with what their metrics say now.")] = "",
    config: Config = EDGE_YAML,
    json_: Json = False,
) -> int:
    """Edge nodes and devices of Sparkplug, and whether they are online; exit 1 if there is none."""
    from hub.app.cli.edge import show_devices

    return show_devices(config, of, json_)


@edge_app.command("command", context_settings={"ignore_unknown_options": True})  # -5 is a value
def edge_command(
    tag: Annotated[str, typer.Argument(help="GROUP/NODE/DEVICE/METRIC, or GROUP/NODE//METRIC of the edge node itself.")],
    value: Annotated[str, typer.Argument(help="A text, or as JSON writes it: true, -5, 2.5.")],
    source: Annotated[str | None, typer.Option(help="The host, by its name in edge.yaml, where several are there.")] = None,
    config: Config = EDGE_YAML,
    json_: Json = False,
) -> int:
    """Write a metric of an edge node or device, at once or not at all; `GROUP/NODE//Node Control/Rebirth true` asks for a rebirth."""
    from hub.app.cli.edge import command

    return command(config, tag, value, source, json_)


@edge_app.command("gaps")
def edge_gaps(all_: Annotated[bool, typer.Option("--all", help="Also those that were filled.")] = False, json_: Json = False) -> int:
    """On the hub: what is known to be missing, with its bounds."""
    from hub.app.cli.edge import show_gaps

    return show_gaps(all_, json_)


@edge_app.command("enrol")
def edge_enrol(
    name: Annotated[str, typer.Argument(metavar="EDGE")],
    out: Annotated[Path | None, typer.Option(help="Folder for certificate, key and a first edge.yaml; default: the edge's name.")] = None,
    url: Annotated[str | None, typer.Option(help="How the edge reaches this hub, https://HOST:8443.")] = None,
    json_: Json = False,
) -> int:
    """On the hub: make an edge's certificate; one that it had is void. The key is written once and not kept."""
    from hub.app.cli.edge import enrol

    return enrol(name, out, url, json_)


@edge_app.command("withdraw")
def edge_withdraw(name: Annotated[str, typer.Argument(metavar="EDGE")], json_: Json = False) -> int:
    """On the hub: let an edge speak no more; exit 1 if it could not."""
    from hub.app.cli.edge import withdraw

    return withdraw(name, json_)


@simulate_app.command("outage")
def simulate_outage(
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How long it lasts.")] = 60.0,
    way: Annotated[
        str,
        typer.Option(
            metavar="cut|hold|broker|edge",
            help="The line refuses; it accepts and says nothing; the MQTT broker is stopped; the edge is killed (SIGKILL).",
        ),
    ] = "cut",
    json_: Json = False,
) -> int:
    """Cut the demo's line between the plant's edge and the hub, or stop its broker or edge, from outside; exit 1 if not all is zero afterwards."""
    from hub.app.cli.simulate import simulate

    return simulate(way, seconds, json_)
