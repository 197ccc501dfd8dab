"""Writes the synchronous SDK from the asynchronous one: ``python hack/generate_sync_sdk.py [--check]``.

In: the classes ``Async*`` of ``agent_sandbox/sdk``. Out: ``agent_sandbox/sdk/sync/*.py`` with the same classes without
the prefix, the same signatures without ``async``, and one line of body each, which hands the call to the loop thread.
Only public methods, properties and annotated attributes of ``__init__`` are carried over.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SDK = ROOT / "agent_sandbox" / "sdk"
OUT = SDK / "sync"
# In this order, because a class may only be wrapped by modules that come after its own.
MODULES = ("process", "commands", "files", "ports", "sandbox", "sandboxes", "client", "computer_use")

HEADER = '''"""{doc}

Generated from ``agent_sandbox/sdk/{module}.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""
'''
PRIVATE = "\n# ruff: noqa: SLF001 - a view and what it shows are one\n"


class ToSync(ast.NodeTransformer):
    """Rewrites annotations: ``AsyncSandbox`` → ``Sandbox``, ``Awaitable[T]`` → ``T``."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self.rename(node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Constant(self.rename(node.value)) if isinstance(node.value, str) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "Awaitable":
            inside: ast.expr = self.visit(node.slice)
            return inside
        if isinstance(node.value, ast.Name) and node.value.id == "AsyncGenerator" and isinstance(node.slice, ast.Tuple):
            node.slice.elts.append(ast.Constant(None))  # a synchronous generator has a third parameter
        self.generic_visit(node)
        return node

    def rename(self, name: str) -> str:
        return re.sub(r"\b(Abstract)?Async(?=[A-Z])", r"\1", name)


def synchronous(node: ast.expr) -> str:
    """The annotation as the synchronous class has it."""
    return ast.unparse(ToSync().visit(ast.parse(ast.unparse(node), mode="eval").body))


def prose(text: str) -> str:
    """A docstring in the words of the synchronous classes."""
    text = re.sub(r"\b(an )?``async with``", lambda found: "a ``with``" if found[1] else "``with``", text)
    # A synchronous object may be entered and left anywhere.
    text = re.sub(r" Enter and\s+leave in\s+the same\s+task\.", "", text)
    text = re.sub(r"an async context manager, entered and left in one task", "a context manager", text)
    text = re.sub(r"\basync with\b", "with", text)
    text = re.sub(r"\basync for\b", "for", text)
    text = re.sub(r"\bawait ", "", text)
    text = re.sub(r"\basync def\b", "def", text)
    return re.sub(r"\bAsync(?=[A-Z])", "", text)


class Writer:
    """Writes one module."""

    def __init__(self, module: str, homes: dict[str, str]) -> None:
        self.module = module
        self.homes = homes
        self.tree = ast.parse((SDK / f"{module}.py").read_text(encoding="utf-8"))
        self.lines: list[str] = []

    def write(self) -> str:
        """The whole text, not yet formatted."""
        doc = prose(ast.get_docstring(self.tree) or "").splitlines()[0]
        self.lines = [HEADER.format(doc=doc, module=self.module)]
        self.imports()
        names = [node.name for node in async_classes(self.tree)]
        for node in async_classes(self.tree):
            self.a_class(node)
        self.lines.append(f"\n__all__ = {sorted(name.removeprefix('Async') for name in names)!r}\n")
        if any("._around(" in line for line in self.lines):
            self.lines.insert(1, PRIVATE)
        return "\n".join(self.lines)

    def imports(self) -> None:
        """All that the module imports, and more; the formatter drops what is not used."""
        self.lines += [ast.unparse(node) for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        self.lines += [
            "from collections.abc import Callable, Generator, Iterable, Iterator",
            "from contextlib import AbstractContextManager",
            "from typing import ClassVar",
            "from agent_sandbox.sdk.facade import ContextFacade, Facade, in_threads",
        ]
        for name, module in self.homes.items():
            self.lines.append(f"from agent_sandbox.sdk.{module} import {name}")
            if module != self.module:
                self.lines.append(f"from agent_sandbox.sdk.sync.{module} import {name.removeprefix('Async')}")
        self.lines += [ast.unparse(node) for node in self.tree.body if is_typevar(node)]

    def a_class(self, node: ast.ClassDef) -> None:
        name = node.name.removeprefix("Async")
        methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
        parents = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id.startswith("Async")]
        base = "ContextFacade" if "__aenter__" in methods else "Facade"
        bases = [parent.removeprefix("Async") for parent in parents] or [f"{base}[{node.name}]"]
        self.lines.append(f"\n\nclass {name}({', '.join(bases)}):")
        self.docstring(node, 1)
        if parents:
            self.lines.append(f"    _inner: {node.name}")
        if parents or "__aenter__" in methods:
            self.lines.append(f"    _core: ClassVar[type[{node.name}]] = {node.name}\n")
        if "__init__" in methods and "__aenter__" in methods:
            self.constructor(node, methods["__init__"])
        self.attributes(node, methods.get("__init__"))
        for method in methods.values():
            if not method.name.startswith("_"):
                self.method(method)
        if "__anext__" in methods:
            item = synchronous(returned(methods["__anext__"]))
            self.lines += [
                f"    def __iter__(self) -> Iterator[{item}]:",
                "        return self._iterate(aiter(self._inner))\n",
            ]

    def constructor(self, node: ast.ClassDef, method: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.lines.append(f"    def __init__({signature(method)}) -> None:")
        self.docstring(method, 2)
        self.lines.append(f"        self._inner = self._core({', '.join(forwarded(method))})\n")

    def attributes(self, node: ast.ClassDef, init: ast.FunctionDef | ast.AsyncFunctionDef | None) -> None:
        for name, annotation in attributes_of(node, init).items():
            kind = synchronous(annotation)
            view = self.view_of(annotation)
            self.lines += [
                "    @property",
                f"    def {name}(self) -> {kind}:",
                f'        """{prose(described(node, name))}"""',
                f"        return {view}._around(self._inner.{name})\n"
                if view
                else f"        return self._inner.{name}\n",
            ]

    def method(self, method: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = {ast.unparse(item) for item in method.decorator_list}
        if "property" in decorators:
            self.lines.append("    @property")
        annotation = returned(method)
        shown = synchronous(annotation)
        if "asynccontextmanager" in decorators:
            shown = re.sub(r"^Iterator\[", "AbstractContextManager[", shown)
        self.lines.append(f"    def {method.name}({signature(method)}) -> {shown}:")
        self.docstring(method, 2)
        self.lines.append(f"        {self.body(method, annotation, decorators)}\n")

    def body(self, method: ast.FunctionDef | ast.AsyncFunctionDef, annotation: ast.expr, decorators: set[str]) -> str:
        if "property" in decorators:
            view = self.view_of(annotation)
            return f"return {view}._around(self._inner.{method.name})" if view else f"return self._inner.{method.name}"
        call = f"self._inner.{method.name}({', '.join(forwarded(method))})"
        text = ast.unparse(annotation)
        inside = annotation.slice if isinstance(annotation, ast.Subscript) else annotation
        inside = inside.elts[0] if isinstance(inside, ast.Tuple) else inside
        view = self.view_of(inside)
        if "asynccontextmanager" in decorators or text.startswith("AbstractAsyncContextManager["):
            return f"return self._enter_view({view}, {call})" if view else f"return self._enter_manager({call})"
        if text.startswith(("AsyncIterator[", "AsyncGenerator[")):
            items = f"self._iterate({call})"
            return f"return ({view}._around(item) for item in {items})" if view else f"return {items}"
        if isinstance(method, ast.FunctionDef):
            return f"return {view}._around({call})" if view else f"return {call}"
        run = f"self._run(lambda job: {call})"
        if text.startswith("list[") and view:
            return f"return [{view}._around(item) for item in {run}]"
        return f"return {view}._around({run})" if view else f"return {run}"

    def view_of(self, annotation: ast.expr) -> str | None:
        """The synchronous class to wrap a value of this type in, if it is one of ours."""
        text = ast.unparse(annotation).strip("'")
        return text.removeprefix("Async") if text in self.homes else None

    def docstring(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, depth: int) -> None:
        text = ast.get_docstring(node, clean=False)
        if text is not None:
            self.lines.append(f'{"    " * depth}"""{prose(text)}"""')


def async_classes(tree: ast.Module) -> list[ast.ClassDef]:
    """The classes that synchronous ones are to be made from."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Async")]


def is_typevar(node: ast.stmt) -> bool:
    """Whether this defines a type variable, which signatures may need."""
    return isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("TypeVar(")


def returned(method: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.expr:
    """The annotation of the result."""
    return method.returns or ast.Constant(None)


def signature(method: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The parameters as the synchronous method has them."""
    arguments = ast.parse(f"def f({ast.unparse(method.args)}): ...").body[0].args  # type: ignore[attr-defined]
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None and argument.annotation is not None:
            argument.annotation = ToSync().visit(argument.annotation)
    return ast.unparse(arguments)


def forwarded(method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The arguments of the inner call."""
    values = [argument_value(argument) for argument in method.args.args[1:]]
    if method.args.vararg is not None:
        values.append(f"*{method.args.vararg.arg}")
    values += [f"{argument.arg}={argument_value(argument)}" for argument in method.args.kwonlyargs]
    return values


def argument_value(argument: ast.arg) -> str:
    """Callbacks are called in the caller's thread; functions that take a sandbox run in threads of their own."""
    text = ast.unparse(argument.annotation) if argument.annotation else ""
    if argument.arg.startswith("on_"):
        return f"None if {argument.arg} is None else job.callback({argument.arg})"
    if found := re.match(r"Callable\[\[(Async\w+)", text):
        return f"in_threads({found[1].removeprefix('Async')}, {argument.arg})"
    return argument.arg


def attributes_of(node: ast.ClassDef, init: ast.FunctionDef | ast.AsyncFunctionDef | None) -> dict[str, ast.expr]:
    """Public attributes and their types: annotated ones, and those that are set to a parameter."""
    found: dict[str, ast.expr] = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            found[item.target.id] = item.annotation
    if init is not None:
        parameters = {item.arg: item.annotation for item in [*init.args.args, *init.args.kwonlyargs]}
        for statement in ast.walk(init):
            target, annotation = assigned(statement, parameters)
            if annotation is None or not isinstance(target, ast.Attribute):
                continue
            if ast.unparse(target.value) == "self":
                found[target.attr] = annotation
    return {name: annotation for name, annotation in found.items() if not name.startswith("_")}


def assigned(statement: ast.AST, parameters: dict[str, ast.expr | None]) -> tuple[ast.expr | None, ast.expr | None]:
    """What a statement assigns to, and the type that it gives it; None for what it does not."""
    if isinstance(statement, ast.AnnAssign):
        return statement.target, statement.annotation
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Name):
        return statement.targets[0], parameters.get(statement.value.id)
    return None, None


def described(node: ast.ClassDef, name: str) -> str:
    """The attribute's line in the class's docstring."""
    text = ast.get_docstring(node) or ""
    found = re.search(rf"^    {name}: (.+?)(?=\n    \w+: |\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise SystemExit(f"{node.name}.{name} is public and its class's docstring does not describe it")
    sentence = re.sub(r"\s+", " ", found[1]).rstrip(".")
    return f"{sentence[0].upper()}{sentence[1:]}."


def generate() -> dict[Path, str]:
    """All files, formatted."""
    homes: dict[str, str] = {}
    for module in MODULES:
        tree = ast.parse((SDK / f"{module}.py").read_text(encoding="utf-8"))
        homes |= {node.name: module for node in async_classes(tree)}
    texts = {OUT / f"{module}.py": tidy(OUT / f"{module}.py", Writer(module, homes).write()) for module in MODULES}
    texts[OUT / "__init__.py"] = (
        '"""The synchronous SDK, generated from the asynchronous one; import it from ``agent_sandbox``."""\n'
    )
    return texts


def tidy(path: Path, text: str) -> str:
    """Drop unused imports, sort the rest, format."""
    ruff = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", str(path), "-"]
    for command in (["check", "--quiet", "--fix-only", "--select", "F401,F811,I,UP,RUF022", *name], ["format", *name]):
        done = subprocess.run([*ruff, *command], input=text, text=True, capture_output=True, check=False, cwd=ROOT)
        if done.returncode or not done.stdout:
            raise SystemExit(f"ruff {command[0]} on {path}: {done.stderr}\n{text}")
        text = done.stdout
    return text


def main() -> None:
    """Write the files, or with ``--check`` say whether they are up to date."""
    texts = generate()
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        if stale:
            raise SystemExit(f"stale: {[str(path.relative_to(ROOT)) for path in stale]}; run {Path(__file__).name}")
        return
    OUT.mkdir(exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
