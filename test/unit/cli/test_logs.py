"""Logs: JSON lines in a cluster, readable on a terminal, and never a secret."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys, structlog
from agent_sandbox.cli.logs import configure_logging

configure_logging("info", sys.argv[1])
log = structlog.get_logger("test")

def connect(token):
    raise ValueError("no such host")

try:
    connect("abc" + "def")
except ValueError:
    log.exception("cannot connect", sandbox="mine", bearer_token="abcdef")
logging.getLogger("aiohttp").warning("the library's word")
log.debug("not shown")
"""


def logged(format: str) -> str:
    """What the program writes to standard error, which is no terminal."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, format], check=True, capture_output=True, text=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("format", ["auto", "json"])
def test_without_a_terminal_each_line_is_one_json_object(format: str) -> None:
    ours, theirs = map(json.loads, logged(format).splitlines())

    assert (ours["event"], ours["level"], ours["sandbox"]) == ("cannot connect", "error", "mine")
    assert ours["exception"][0]["exc_type"] == "ValueError"
    assert (theirs["event"], theirs["level"]) == ("the library's word", "warning")
    assert ours["timestamp"].endswith("Z")


def test_the_console_is_for_people() -> None:
    text = logged("console")

    assert "cannot connect" in text
    assert "Traceback (most recent call last):" in text
    assert not text.startswith("{")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk_ends_no_process() -> None:
    """The line that tells of a full disk is the first that finds no room on it."""
    program = PROGRAM + "print('still here')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "json"], check=False, stdout=subprocess.PIPE, stderr=full, text=True
        )
    assert done.stdout == "still here\n"


@pytest.mark.parametrize("format", ["json", "console"])
def test_neither_a_named_secret_nor_the_variables_of_a_traceback_are_shown(format: str) -> None:
    text = logged(format)

    assert "abcdef" not in text
    assert "(hidden)" in text


def test_the_daemon_writes_the_same_keys_without_structlog() -> None:
    program = """
import logging
from agent_sandbox.sandboxd.logs import configure_logging
configure_logging()
token = "abc" + "def"
try:
    raise ValueError("no")
except ValueError:
    logging.getLogger("d").exception("it failed")
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    line = json.loads(done.stderr)

    assert (line["event"], line["level"]) == ("it failed", "error")
    assert line["timestamp"].endswith("Z")
    assert "ValueError: no" in line["exception"]
    assert "abcdef" not in done.stderr
