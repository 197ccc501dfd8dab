#!/usr/bin/env python
"""Writes the software bill of materials of an image, CycloneDX 1.6 as JSON, from the image's root file system.

    mount=$(buildah mount "$(buildah from IMAGE)")
    hack/sbom.py "$mount" --name agent-sandbox-controller --version 0.1.0 >sbom.json

It lists Debian's packages (/var/lib/dpkg) and the Python distributions in every folder site-packages or dist-packages,
each with version, licence where one is stated, and package URL. Needs the dependency group `release`.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL


def debian_packages(root: Path) -> Iterator[Component]:
    """What dpkg knows to be installed."""
    status = root / "var" / "lib" / "dpkg" / "status"
    if not status.exists():
        return
    for paragraph in status.read_text(errors="replace").split("\n\n"):
        fields: Message = HeaderParser().parsestr(paragraph)
        if fields.get("Status") != "install ok installed":
            continue
        name, version = str(fields["Package"]), str(fields["Version"])
        qualifiers = {"arch": str(fields["Architecture"])}
        url = PackageURL("deb", "debian", name, version, qualifiers)
        yield Component(name=name, version=version, purl=url, bom_ref=str(url), type=ComponentType.LIBRARY)


def python_distributions(root: Path) -> Iterator[Component]:
    """What pip, or Debian, put into folders that Python imports from."""
    folders = [Path(folder) for folder, _, _ in os.walk(root) if folder.endswith(("site-packages", "dist-packages"))]
    for found in distributions(path=[str(folder) for folder in sorted(folders)]):
        name = found.metadata["Name"].lower().replace("_", "-")
        url = PackageURL("pypi", None, name, found.version)
        yield Component(
            name=name,
            version=found.version,
            purl=url,
            bom_ref=str(url),
            type=ComponentType.LIBRARY,
            licenses=licences(found),
        )


def licences(found: Distribution) -> list[DisjunctiveLicense]:
    """The licence that a distribution states in one line; some put the whole text there."""
    fields = found.metadata
    stated = next((fields[key] for key in ("License-Expression", "License") if key in fields), "")
    return [DisjunctiveLicense(name=stated)] if stated and "\n" not in stated and len(stated) < 100 else []


def bill_of(root: Path, name: str, version: str) -> str:
    """The document."""
    bom = Bom()
    bom.metadata.component = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref="image")
    seen: set[str] = set()
    for component in [*debian_packages(root), *python_distributions(root)]:
        if str(component.purl) not in seen:
            seen.add(str(component.purl))
            bom.components.add(component)
    bom.register_dependency(bom.metadata.component, bom.components)
    return str(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2))


def main() -> int:
    """Write it to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the image's root file system")
    parser.add_argument("--name", required=True, help="name of the image")
    parser.add_argument("--version", required=True, help="version of the image")
    arguments = parser.parse_args()
    if not arguments.root.is_dir():
        print(f"{arguments.root} is no folder: mount the image first", file=sys.stderr)
        return 2
    print(bill_of(arguments.root, arguments.name, arguments.version))
    return 0


if __name__ == "__main__":
    sys.exit(main())
