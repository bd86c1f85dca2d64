"""The server: a page, its files, and one stream of events for each request.

It keeps no session. A request holds the whole state of the page and the name of its tab. The answer
is a stream of server-sent events, the last of which is a view, or an error in words.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .guard import Guard
from .heatmaps import as_csv, as_page
from .page import page, static_files
from .panels import cell_panel, compare_panel, patch_panel, read_panel
from .state import MOST_CHARACTERS, State, parse_state
from .subject import Subject
from .worker import MOST_WAITING, Emit, Worker
from .write_panel import alternatives_panel, write_panel

TASKS: dict[str, Callable[[Subject, State, Emit], None]] = {
    "read": read_panel,
    "cell": cell_panel,
    "patch": patch_panel,
    "write": write_panel,
    "alternatives": alternatives_panel,
    "compare": compare_panel,
    "csv": as_csv,
    "html": as_page,
}
_NOT_FINITE = "a number of this view is infinite, or none: read it with the library instead"
_MOST_BYTES = 12 * MOST_CHARACTERS  # of a request: every character may be an escape of six letters


class TooMuchError(Exception):
    """A request is longer than the explorer takes."""


def make_server(subject: Subject, token: str, worker: Worker) -> Guard:
    """The explorer of a model, as an ASGI application under `/<token>/`, which closes `worker`."""
    files = static_files()

    async def show(_request: Request) -> Response:
        return HTMLResponse(page(subject))

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            return _refusal("there is no such file", 404)
        return Response(found.content, media_type=found.media_type)

    async def run(request: Request) -> Response:
        task = TASKS.get(request.path_params["task"])
        if task is None:
            return _refusal(f"there is no such task; there are {', '.join(TASKS)}", 404)
        try:
            asked = json.loads(await _body(request))
            if not isinstance(asked, dict):
                raise ValueError("a request is an object with a state and a tab")
            state = parse_state(asked.get("state", {}))
        except TooMuchError as error:
            return _refusal(str(error), 413)
        except (ValueError, RecursionError) as error:
            return _refusal(str(error), 400)
        slot = f"{str(asked.get('tab', ''))[:64]}/{request.path_params['task']}"
        if worker.full:
            return _refusal(f"{MOST_WAITING} requests are waiting already: try again soon", 503)
        events = worker.events(slot, partial(task, subject, state))
        return StreamingResponse(_stream(events), media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        worker.close()

    app = Starlette(
        routes=[
            Route("/", show),
            Route("/static/{name}", file),
            Route("/run/{task}", run, methods=["POST"]),
        ],
        lifespan=lifespan,
    )
    return Guard(app, token)


async def _body(request: Request) -> bytes:
    """What was sent.

    Raises `TooMuchError` if it is too long.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise TooMuchError(
                f"that is too much for the explorer, which takes {MOST_CHARACTERS:,} characters"
            )
    return body


async def _stream(events: AsyncIterator[tuple[str, dict]]) -> AsyncIterator[str]:
    async for name, data in events:
        try:
            text = json.dumps(data, allow_nan=False)  # without a line break of its own
        except ValueError:
            name, text = "error", json.dumps({"message": _NOT_FINITE})
        yield f"event: {name}\ndata: {text}\n\n"


def _refusal(message: str, status: int) -> Response:
    return JSONResponse({"message": message}, status_code=status)
