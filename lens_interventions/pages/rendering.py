"""The templates of pages, and the parts that make a page open offline."""

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    import plotly.graph_objects as go


def render(template: str, **values: Any) -> str:
    """The page that a template of this package makes from values, which are escaped.

    `template` is a path inside the package, such as "demo/page.html". Templates extend `base.html`,
    which needs `title` and `figures`, plain figures by the id of the element that shows each.
    """
    return environment(__package__).get_template(template).render(values)


def plain_figure(figure: "go.Figure") -> dict[str, Any]:
    """A plotly figure as JSON values."""
    return json.loads(figure.to_json())


@cache
def environment(package: str) -> Environment:
    """The templates of a package, which escape their values."""
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plotlyjs"] = _plotlyjs
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment


def _plotlyjs() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
