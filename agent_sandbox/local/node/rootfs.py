"""The root file system of sandboxes: this machine's ``/usr``, a Python, and the sandbox daemon, all read-only.

In: the interpreter and the installed packages that the node itself runs on. Out: a directory of small files and of
copies of the daemon's packages, and a list of host directories to show. Nothing of the host's home directories is among
them: an interpreter installed below one is shown alone, at ``/opt/agent-sandbox/python``. The packages are copied, not
shown in place, because a sandbox shall not see what else is installed beside them.
"""

import compileall
import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from agent_sandbox.local.node.images import OWN_DIRECTORY, WORKSPACE

_DAEMON_DISTRIBUTIONS: Final = ("aiohttp", "anyio")

_START_DAEMON: Final = """\
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agent_sandbox.sandboxd import main

sys.exit(main(sys.argv[1:]))
"""

_COMMAND: Final = f"""\
#!/bin/sh
if [ "$1" = sandboxd ]; then
  shift
  exec {OWN_DIRECTORY}/bin/python3 -I -S {OWN_DIRECTORY}/lib/start_sandboxd.py "$@"
fi
echo "agent-sandbox: inside a sandbox there is only 'agent-sandbox sandboxd'" >&2
exit 2
"""
"""For manifests that name the daemon as a cluster's image has it."""

_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
    "sandbox:x:1000:1000:sandbox:/workspace:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "lib/start_sandboxd.py": _START_DAEMON,
}


@dataclass(frozen=True)
class RootFiles:
    """What every sandbox's root file system is made of.

    Attributes:
        directory: our own files on the host: ``bin``, ``lib`` and ``etc``, and ``host-bin`` for Pods without walls.
        python_prefix: the interpreter's installation on the host, or None if it is part of ``/usr``.
        library_path: directory for LD_LIBRARY_PATH inside, empty if the interpreter finds its library by itself.
    """

    directory: Path
    python_prefix: Path | None
    library_path: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables without which the interpreter does not start."""
        return {"LD_LIBRARY_PATH": self.library_path} if self.library_path else {}

    def on_host(self, text: str, workspace: Path) -> str:
        """A word or a list of paths that speaks of places inside a sandbox, for a process that has no inside."""
        places = {
            f"{OWN_DIRECTORY}/bin": str(self.directory / "host-bin"),
            f"{OWN_DIRECTORY}/lib": str(self.directory / "lib"),
            f"{OWN_DIRECTORY}/python": str(self.python_prefix),
            WORKSPACE: str(workspace),
        }
        return ":".join(_moved(part, places) for part in text.split(":"))


def _moved(path: str, places: Mapping[str, str]) -> str:
    for inside, outside in places.items():
        if path == inside or path.startswith(f"{inside}/"):
            return outside + path[len(inside) :]
    return path


def _requirements(names: Iterable[str]) -> Iterator[Distribution]:
    """The named distributions and all they need; what a marker excluded is not installed and is passed over."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield found
        for requirement in found.requires or ():
            wanted, _, marker = requirement.partition(";")
            if "extra" not in marker:
                waiting.append(_distribution_name(wanted))


def _distribution_name(requirement: str) -> str:
    for index, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:index].lower()
    return requirement.lower()


def _daemon_sources() -> list[tuple[Path, str]]:
    """Pairs of a source file of the daemon and its place below ``lib``."""
    spec = importlib.util.find_spec("agent_sandbox")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("agent_sandbox is not importable as a package")
    package = Path(spec.submodule_search_locations[0])
    modules = [
        package / "__init__.py",
        package / "signals.py",
        package / "tracing.py",
        *sorted((package / "sandboxd").rglob("*.py")),
    ]
    return [(module, f"agent_sandbox/{module.relative_to(package)}") for module in modules]


def _package_files(found: Distribution) -> Iterator[tuple[Path, str]]:
    for entry in found.files or ():
        place = str(entry)
        if not place.startswith("..") and ".dist-info/" not in place:
            yield Path(str(found.locate_file(entry))), place


def _fingerprint(sources: Iterable[tuple[Path, str]], distributions: Iterable[Distribution]) -> str:
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix} {sorted(_FILES.items())} {_COMMAND}".encode())
    for found in distributions:
        digest.update(f"{found.metadata['Name']}={found.version};".encode())
    for source, place in sources:
        facts = source.stat()
        digest.update(f"{place}:{facts.st_size}:{facts.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def _interpreter() -> tuple[Path | None, str]:
    """The prefix to show (None if in ``/usr``), and the interpreter's path inside."""
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if prefix == Path("/usr") or Path("/usr") in prefix.parents:
        return None, f"{prefix}/bin/{name}"
    return prefix, f"{OWN_DIRECTORY}/python/bin/{name}"


def _library_path(prefix: Path | None) -> str:
    if prefix is None or not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return ""
    return f"{OWN_DIRECTORY}/python/lib"


def _write(directory: Path, sources: list[tuple[Path, str]], distributions: list[Distribution], python: str) -> None:
    for place, text in _FILES.items():
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    packages = [pair for found in distributions for pair in _package_files(found)]
    for source, place in [*packages, *sources]:
        if source.is_file():
            target = directory / "lib" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    host_python = Path(sys.base_prefix).resolve() / "bin" / Path(python).name
    for folder, interpreter in (("bin", python), ("host-bin", str(host_python))):
        (directory / folder).mkdir()
        for name in ("python", "python3", Path(python).name):
            (directory / folder / name).symlink_to(interpreter)
    command = directory / "bin" / "agent-sandbox"
    command.write_text(_COMMAND, encoding="utf-8")
    command.chmod(0o755)
    compileall.compile_dir(directory / "lib", quiet=2, stripdir=directory, prependdir=OWN_DIRECTORY)
    for path in [directory, *directory.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


def build_root_files(parent: Path) -> RootFiles:
    """Make our own part of the root file system below ``parent``, or find the one made by an earlier run.

    Directories of other versions are removed: call it only while no node runs on them. Takes about half a second when
    there is nothing yet, 20 ms otherwise; run it in a thread.

    Raises:
        OSError: the disk refused.
    """
    distributions = list(_requirements(_DAEMON_DISTRIBUTIONS))
    sources = _daemon_sources()
    prefix, python = _interpreter()
    parent.mkdir(parents=True, exist_ok=True)
    name = _fingerprint(sources, distributions)
    for other in parent.iterdir():
        if other.name != name:
            shutil.rmtree(other)
    directory = parent / name
    if not directory.exists():
        building = parent / f".{name}"
        building.mkdir()
        _write(building, sources, distributions, python)
        building.rename(directory)
    return RootFiles(directory, prefix, _library_path(prefix))
