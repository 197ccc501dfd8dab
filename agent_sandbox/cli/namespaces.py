"""Options that name namespaces."""

import re
from typing import Any, Final

import click

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Namespace(click.ParamType):  # type: ignore[type-arg] # generic in new versions of click only
    """The name of a namespace."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is."""
        if _NAMESPACE.fullmatch(value) is None:
            self.fail(f"{value!r} cannot be a namespace: small letters, digits and '-', 63 at most", param, ctx)
        return str(value)


class Namespaces(Namespace):
    """Comma-separated namespaces: a tuple, or None for nothing, which means all."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The names; a text without one is a mistake, as all namespaces would be far more than was meant."""
        if not isinstance(value, str) or not value:
            return value or None
        names = [name.strip() for name in value.split(",") if name.strip()]
        if not names:
            self.fail(f"{value!r} names no namespace; leave the option out for all of them", param, ctx)
        return tuple(super(Namespaces, self).convert(name, param, ctx) for name in names)


NAMESPACE: Final = Namespace()
watch_namespaces_option: Final = click.option(
    "--watch-namespaces",
    type=Namespaces(),
    default="",
    help="Comma-separated namespaces to serve. Default: all.",
)
