"""`agent-sandbox sandboxd`: the daemon inside a sandbox; its options are its own."""

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
@click.pass_context
def sandboxd(context: click.Context) -> None:
    """Run the daemon inside a sandbox."""
    from agent_sandbox.sandboxd import main

    raise SystemExit(main(context.args))
