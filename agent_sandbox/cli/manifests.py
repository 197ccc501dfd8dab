"""Reads manifests from files, folders and standard input."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

Manifest = dict[str, Any]


def read_manifests(sources: Sequence[str]) -> list[Manifest]:
    """All objects in the given files, in order; a folder means its YAML and JSON files, `-` means standard input.

    Raises:
        click.ClickException: a source is missing, is not YAML, or holds something that is no Kubernetes object; or
            all of them are empty.
    """
    manifests: list[Manifest] = []
    for source in sources:
        for name, text in _texts(source):
            manifests.extend(_objects(name, text))
    if not manifests:
        raise click.ClickException(f"there is no object in {', '.join(sources)}")
    return manifests


def _texts(source: str) -> list[tuple[str, str]]:
    if source == "-":
        return [("standard input", sys.stdin.read())]
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in {".yaml", ".yml", ".json"})
        if not files:
            raise click.ClickException(f"no YAML or JSON file in {path}")
        return [(str(file), file.read_text()) for file in files if file.stem != "kustomization"]
    if not path.is_file():
        raise click.ClickException(f"no such file or folder: {path}")
    return [(str(path), path.read_text())]


def _objects(name: str, text: str) -> list[Manifest]:
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise click.ClickException(f"{name} is not YAML: {error}") from error
    objects: list[Manifest] = []
    for document in documents:
        items = document.get("items", [document]) if isinstance(document, dict) else [document]
        for item in items:
            if not (isinstance(item, dict) and item.get("apiVersion") and item.get("kind")):
                raise click.ClickException(
                    f"{name} holds something without apiVersion and kind: it is no Kubernetes object"
                )
            if not (item.get("metadata") or {}).get("name"):
                raise click.ClickException(f"{name}: a {item['kind']} has no metadata.name")
            objects.append(item)
    return objects
