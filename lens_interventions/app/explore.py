"""Starting and stopping the explorer for a model in this process."""

import asyncio
import html
import importlib.util
import os
import secrets
import socket
import threading
import time
import webbrowser
from typing import TYPE_CHECKING

from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens

from ..intervention.slopes.result import SlopeMap
from ..lens.protocol import Lens
from .subject import Origin, Subject
from .worker import Worker

if TYPE_CHECKING:
    import uvicorn

_START_SECONDS = 30
_FRAME_HEIGHT = 900  # pixels, in a notebook


class Explorer:
    """A running explorer, which a notebook shows in a frame.

    `url` is its address, with the secret that lets a page in.
    """

    def __init__(self, subject: Subject, listening: socket.socket) -> None:
        """Start the explorer on a socket of `bound_socket`; call `explore` instead."""
        token, self._worker = secrets.token_urlsafe(16), Worker()
        server = _server(subject, token, self._worker)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/"
        self._server = server
        self._thread = threading.Thread(
            target=_serve, args=(server, listening), name="explorer", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not server.started and self._thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.02)
            if not server.started:
                raise RuntimeError(
                    f"the explorer did not start within {_START_SECONDS} seconds"
                    if self._thread.is_alive()
                    else "the explorer's server ended at once: the terminal says why"
                )
        except BaseException:
            server.should_exit = True
            raise

    def __repr__(self) -> str:
        return f"Explorer({self.url!r})"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        return (
            f'<p><a href="{url}" target="_blank" rel="noopener">Open the explorer</a></p>'
            f'<iframe src="{url}" title="The explorer" width="100%" height="{_FRAME_HEIGHT}" '
            'style="border: 1px solid #8888"></iframe>'
        )

    def wait(self) -> None:
        """Wait until the explorer has stopped."""
        while self._thread.is_alive():
            self._thread.join(1)

    def stop(self) -> None:
        """Stop the explorer; a running computation ends at its next step.

        It waits for that, so do not call it while holding the model (`exclusive_use`).
        """
        self._worker.cancel()  # so that answers end by themselves
        self._server.should_exit = True
        self._thread.join()


def explore(
    bridge: TransformerBridge,
    *,
    lens: Lens | JacobianLens | None = None,
    other: TransformerBridge | None = None,
    slopes: SlopeMap | None = None,
    port: int = 0,
    open_browser: bool = False,
) -> Explorer:
    """Show a model on a page of this machine: read it, patch it, watch it write.

    The page computes on the bridge as it is, including the hooks on it, and leaves it unchanged. It
    is served only to this machine, under an address that holds a secret, and loads nothing from
    elsewhere. It needs the extra `app`: from the checkout, `pip install ".[app]"`.

    **Arguments:**

    - `lens`: a lens that can be chosen besides the raw one and the one that is fitted on demand.
    - `other`: a second model with the same tokenizer and as many layers, to compare with.
    - `slopes`: a result of `slope_map`, shown beside the choice of the patch.
    - `port`: the port to listen on; 0 for any free port.
    - `open_browser`: open the page in a browser of this machine.

    **Returns:** an `Explorer`, which a notebook shows in a frame; `stop()` ends it.

    Raises `RuntimeError` if the extra is not installed; `OSError` if the port is taken;
    `ValueError` or `NotImplementedError` if no lens can read the model, or if the two models have
    different tokenizers or numbers of layers.
    """
    subject = Subject(bridge, Origin(), lens, other, slopes)
    explorer = Explorer(subject, bound_socket(port))
    if open_browser:
        webbrowser.open(explorer.url)
    return explorer


def _serve(server: "uvicorn.Server", listening: socket.socket) -> None:
    # Debuggers and `nest_asyncio` put a function of their own in place of `asyncio.run`.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(server.serve(sockets=[listening]))
    finally:
        loop.close()


def bound_socket(port: int) -> socket.socket:
    """A socket for an explorer, bound to a port of this machine; 0 for any that is free.

    Raises `RuntimeError` if the extra is not installed, and `OSError` if the port is taken.
    """
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise RuntimeError(
            f'the explorer needs {" and ".join(missing)}; from the checkout: pip install ".[app]"'
        )
    listening = socket.socket()
    # Otherwise a port stays taken for a minute after an explorer has stopped.
    if os.name == "posix":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # or another explorer that is about to start could bind it too
    except (OSError, OverflowError) as error:
        listening.close()
        raise OSError(
            f"the explorer cannot listen on port {port} ({error}): choose another, or 0 for one "
            "that is free"
        ) from error
    return listening


def _server(subject: Subject, token: str, worker: Worker) -> "uvicorn.Server":
    """A server that has not started."""
    import uvicorn

    from .server import make_server

    # Its own configuration of logging would close the user's handlers.
    config = uvicorn.Config(
        make_server(subject, token, worker),
        log_config=None,
        log_level=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)
