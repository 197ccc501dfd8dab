"""The one command, `agent-sandbox`: each verb lives in a module of its own and loads only when it is called."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

import click

_VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "apply": ("agent_sandbox.cli.apply:apply", "Create or update objects from manifests, without kubectl."),
    "local": ("agent_sandbox.cli.local:local", "A whole Agent Sandbox on this machine: no cluster, no Docker."),
    "manager": ("agent_sandbox.cli.manager:manager", "Run the controllers against a Kubernetes cluster."),
    "router": ("agent_sandbox.cli.router:router", "Run the front door to the sandboxes of a cluster."),
    "sandboxd": ("agent_sandbox.cli.sandboxd:sandboxd", "Run the daemon inside a sandbox."),
}


class LazyGroup(click.Group):
    """A command group that imports a verb when it is called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the alphabet."""
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb."""
        if cmd_name not in _VERBS:
            return None
        module_name, _, attribute = _VERBS[cmd_name][0].partition(":")
        command: Any = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from their one-line texts, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _VERBS[name][1]) for name in self.list_commands(ctx)])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="agent-sandbox-k8s", prog_name="agent-sandbox")
def main() -> None:
    """Computers for AI agents: isolated, stateful, ready at once.

    \b
    On one machine, without a cluster:
      agent-sandbox local up --background
      agent-sandbox apply -f config/samples
    On Kubernetes:
      agent-sandbox manager --help
    """
