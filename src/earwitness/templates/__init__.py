"""Every page that earwitness writes or serves, as Jinja2 templates; what they show is escaped."""

from functools import cache
from typing import TYPE_CHECKING

from earwitness.errors import MissingDependencyError

if TYPE_CHECKING:
    from jinja2 import Environment


def render(name: str, /, **values: object) -> str:
    """The template `name` filled with `values`; a value that the template lacks is an error.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    return _environment().get_template(name).render(**values)


def svg(text: str) -> str:
    """An SVG element of our own making that a template puts into the page as it is."""
    from markupsafe import Markup

    return Markup(text)


@cache
def _environment() -> "Environment":
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingDependencyError(
            "HTML pages need the package jinja2; pip install jinja2"
        ) from None
    environment = Environment(
        loader=PackageLoader("earwitness", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment
