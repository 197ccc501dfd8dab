"""A set of field paths in the form in which Kubernetes writes it: the ``fieldsV1`` trie.

A path is a tuple of elements: ``f:name`` for a field, ``k:{...}`` for a list item by its keys, ``v:...`` for an item of
a set. A node is a dict from element to node; an empty node is a member, a node with children is one only if it has
``"."``. Every function keeps that form, so a trie can be stored as it is.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

Trie: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]


def insert(trie: Trie, path: Path) -> None:
    """Add a path."""
    node, is_new = trie, True
    for element in path:
        if not node and not is_new:
            # It was a member without children; with children it says so.
            node["."] = {}
        child = node.get(element)
        is_new = child is None
        if child is None:
            child = node[element] = {}
        node = child
    if node and not is_new:
        node["."] = {}


def contains(trie: Trie, path: Path) -> bool:
    """True if the path is a member."""
    node = find(trie, path)
    return node is not None and (not node or "." in node)


def find(trie: Trie, path: Path) -> Trie | None:
    """The node at a path, member or not; None if nothing at or below the path is a member."""
    node = trie
    for element in path:
        child = node.get(element)
        if child is None:
            return None
        node = child
    return node


def discard(trie: Trie, path: Path) -> None:
    """Remove a path and everything below it."""
    if not path or path[0] not in trie:
        return
    child = trie[path[0]]
    if len(path) == 1:
        del trie[path[0]]
    else:
        had_children = bool(child)
        discard(child, path[1:])
        if not child and had_children:
            del trie[path[0]]
            return
        if set(child) == {"."}:
            child.clear()


def discard_member(trie: Trie, path: Path) -> None:
    """Remove a path, but nothing below it."""
    node = find(trie, path)
    if node is None:
        return
    if not node:
        discard(trie, path)
    else:
        node.pop(".", None)


def members(trie: Trie, prefix: Path = ()) -> Iterator[Path]:
    """Every path in the set, parents before children."""
    for element, child in trie.items():
        if element == ".":
            continue
        path = (*prefix, element)
        if not child or "." in child:
            yield path
        yield from members(child, path)


def show(path: Path) -> str:
    """A path as Kubernetes prints it.

    >>> show(("f:spec", "f:containers", 'k:{"name":"c"}', "f:image"))
    '.spec.containers[name="c"].image'
    """
    return "".join(_show_element(element) for element in path)


def _show_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "v:":
        return f"[={text}]"
    keys = msgspec.json.decode(text)
    return "[" + ",".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in keys.items()) + "]"
