"""The one command, `agent-sandbox`: each verb lives in a module of its own and loads only when it is called."""

import difflib
import importlib
import signal
from collections.abc import Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

_SANDBOX_VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "create": ("agent_sandbox.cli.sandboxes.create:create", "Make a sandbox and print its name."),
    "ls": ("agent_sandbox.cli.sandboxes.ls:ls", "List sandboxes."),
    "run": ("agent_sandbox.cli.sandboxes.run:run", "Run a command in a fresh sandbox, or in one that exists."),
    "exec": ("agent_sandbox.cli.sandboxes.exec:exec_", "Run a command, or a shell on this terminal, in a sandbox."),
    "cp": ("agent_sandbox.cli.sandboxes.cp:cp", "Copy files and directories into a sandbox and out of it."),
    "sync": ("agent_sandbox.cli.sandboxes.sync:sync", "Make a directory here and one in a sandbox equal."),
    "logs": ("agent_sandbox.cli.sandboxes.logs:logs", "Print the log of a sandbox."),
    "port": ("agent_sandbox.cli.sandboxes.port:port", "Make ports of a sandbox ports of this machine."),
    "url": ("agent_sandbox.cli.sandboxes.url:url", "Print a link to a port of a sandbox, for a browser or for curl."),
    "suspend": ("agent_sandbox.cli.sandboxes.lifecycle:suspend", "Stop sandboxes and keep their volumes."),
    "resume": ("agent_sandbox.cli.sandboxes.lifecycle:resume", "Start suspended sandboxes again."),
    "rm": ("agent_sandbox.cli.sandboxes.lifecycle:rm", "Remove sandboxes with everything in them."),
    "doctor": ("agent_sandbox.cli.sandboxes.doctor:doctor", "Say what is wrong, and what to type next."),
}
_SERVICE_VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "local": ("agent_sandbox.cli.local:local", "A whole Agent Sandbox on this machine: no cluster, no Docker."),
    "apply": ("agent_sandbox.cli.apply:apply", "Create or update objects from manifests, without kubectl."),
    "manager": ("agent_sandbox.cli.manager:manager", "Run the controllers against a Kubernetes cluster."),
    "router": ("agent_sandbox.cli.router:router", "Run the front door to the sandboxes of a cluster."),
    "sandboxd": ("agent_sandbox.cli.sandboxd:sandboxd", "Run the daemon inside a sandbox."),
    "bench": ("agent_sandbox.cli.bench:bench", "Measure how long claims take on a cluster, and what they cost."),
    "completion": ("agent_sandbox.cli.sandboxes.completion:completion", "Teach the shell our verbs and names."),
}
_VERBS: Final = {**_SANDBOX_VERBS, **_SERVICE_VERBS}


class LazyGroup(click.Group):
    """A command group that imports a verb when it is called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which somebody new needs them."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one verb."""
        if cmd_name not in _VERBS:
            return None
        module_name, _, attribute = _VERBS[cmd_name][0].partition(":")
        command: Any = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for one that does not exist, those that are near are named."""
        if args[0] not in _VERBS and (near := difflib.get_close_matches(args[0], _VERBS, n=2)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, near))}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; an interrupt that finds it still loading ends the command as a shell expects."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from their one-line texts, without importing them."""
        for title, verbs in (("Sandboxes", _SANDBOX_VERBS), ("What serves them", _SERVICE_VERBS)):
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs that begin like this, without importing any."""
        verbs = [CompletionItem(name, help=text) for name, (_, text) in _VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="agent-sandbox-k8s", prog_name="agent-sandbox")
def main() -> None:
    """Computers for AI agents: isolated, stateful, ready at once.

    \b
    On one machine, without a cluster:
      agent-sandbox local up --background
      agent-sandbox apply -f config/samples
      agent-sandbox run --template python-sandbox-template -- python -c 'print(42)'
    On Kubernetes, and when something does not work:
      agent-sandbox doctor
    """
