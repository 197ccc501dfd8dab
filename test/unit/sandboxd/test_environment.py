"""Commands see what the Pod was given, and nothing of the daemon."""

from agent_sandbox.sandboxd.environment import command_environment


def test_variables_of_the_pod_pass() -> None:
    environment = command_environment({"PATH": "/bin", "HOME": "/h", "API_KEY": "x", "PYTHONUNBUFFERED": "1"})

    assert environment == {"PATH": "/bin", "HOME": "/h", "API_KEY": "x", "PYTHONUNBUFFERED": "1"}


def test_variables_of_the_daemon_do_not() -> None:
    inherited = {
        "PYTHONPATH": "/opt/daemon",
        "PYTHONHOME": "/opt",
        "VIRTUAL_ENV": "/venv",
        "SANDBOXD_TOKEN": "t",
        "LD_LIBRARY_PATH": "/opt/lib",
        "GIVEN": "1",
        "SANDBOXD_OWN_VARIABLES": "LD_LIBRARY_PATH, OTHER",
        "OTHER": "1",
        "KEPT": "1",
    }

    environment = command_environment(inherited, own_variables=["GIVEN"], home="/workspace")

    assert set(environment) == {"KEPT", "PATH", "HOME"}
    assert environment["HOME"] == "/workspace"


def test_variable_that_the_launcher_overwrote_is_restored() -> None:
    environment = command_environment(
        {"PATH": "/daemon/bin", "SANDBOXD_ENV_PATH": "/bin", "SANDBOXD_ENV_PYTHONPATH": "/app"}
    )

    assert environment["PATH"] == "/bin"
    assert environment["PYTHONPATH"] == "/app"
