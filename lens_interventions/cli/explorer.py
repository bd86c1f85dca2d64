"""`lens-interventions app`: the explorer, a page that reads, patches and writes."""

import webbrowser
from typing import Annotated

import typer

from .options import Device, Dtype, LensName, Model, Revision, lens_and_line, load


def explorer(
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
    lens: LensName = None,
    other: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A second model with the same tokenizer and as many layers, to compare with.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the page; 0 for any free port.")
    ] = 0,
    view: Annotated[
        str, typer.Option(help="Open this view: the part of a page's address after the #.")
    ] = "",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Explore a model on a page of this machine: type a text, see every layer, patch the model.

    Needs the extra `app`. Ctrl-C stops it.
    """
    from ..app.explore import Explorer, bound_socket
    from ..app.subject import Origin, Subject

    listening = bound_socket(port)  # before the model is fetched
    given, lens_line = (None, None) if lens is None else lens_and_line(lens)
    bridge = load(model, device, dtype, revision)
    second = None if other is None else load(other, device, dtype, None)
    options = {
        "--model": model,
        "--revision": revision,
        "--device": device,
        "--dtype": None if dtype == "float32" else dtype,
    }
    origin = Origin(
        bridge=_bridge_line(model, options),
        lens=lens_line,
        options=tuple(word for name, value in options.items() if value for word in (name, value)),
        lens_options=() if lens is None else ("--lens", lens),
        other_options=() if other is None else ("--other", other),
    )
    subject = Subject(bridge, origin, given, second)
    explorer = Explorer(subject, listening)
    # What comes before a "#" is of another run.
    address = explorer.url + (f"#{view.rpartition('#')[2]}" if view else "")
    typer.echo(f"The explorer is at {address}\nStop it with Ctrl-C.")
    if browser:
        webbrowser.open(address)
    try:
        explorer.wait()
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
    finally:
        explorer.stop()


def _bridge_line(model: str | None, options: dict[str, str | None]) -> str:
    said = [] if model is None else [repr(model)]
    said += [
        f"{name}={options[f'--{name}']!r}"
        for name in ("revision", "device")
        if options[f"--{name}"]
    ]
    if dtype := options["--dtype"]:
        return f"import torch\nbridge = li.load_model({', '.join([*said, f'dtype=torch.{dtype}'])})"
    return f"bridge = li.load_model({', '.join(said)})"
