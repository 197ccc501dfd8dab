"""What the daemon takes on its command line, and what it refuses there."""

import pytest

from agent_sandbox.sandboxd.command_line import parse


def test_what_is_given_reaches_the_daemon() -> None:
    options = parse(["--port", "0", "--default-timeout", "1.5", "--max-timeout", "60", "--shutdown-grace", "0"])

    assert (options.port, options.default_timeout, options.max_timeout, options.shutdown_grace) == (0, 1.5, 60, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "from 0 to 65535"),
        (["--max-processes", "0"], "above 0"),
        (["--default-timeout", "-1"], "a number of seconds above 0"),
        (["--max-timeout", "nan"], "a number of seconds above 0"),
        (["--shutdown-grace", "inf"], "0 or more"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A negative default would kill every command at once."""
    with pytest.raises(SystemExit):
        parse(arguments)

    assert words in capsys.readouterr().err
