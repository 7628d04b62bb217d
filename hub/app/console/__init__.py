"""The console: pages on the API's application that show whether data flows, what is where, and where anything came from and went."""

from fastapi import FastAPI
from nicegui import ui

from hub.app.console import edge, overview, stock, trace
from hub.app.console.live import Live
from hub.app.wiring import Hub


def add_console(app: FastAPI, hub: Hub) -> None:
    """Put the pages on the application, below its guard; once a process, because NiceGUI's pages belong to the process."""
    live = Live(hub)
    overview.add(live)
    stock.add(live, hub)
    trace.add(live, hub)
    edge.add(app, live)
    ui.run_with(
        app, title="Millwright", dark=None, tailwind=False, show_welcome_message=False, reconnect_timeout=10.0, message_history_length=100
    )
