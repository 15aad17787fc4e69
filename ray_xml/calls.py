"""Which imported functions a documented function calls, by full name.

A call's full name is what the module's import statements make of it: ``import numpy as np`` turns
``np.linalg.norm(x)`` into ``numpy.linalg.norm``. Builtins, functions of the same module and names
that a parameter or an assignment shadows are left out. Where a name is both imported and assigned
in one scope it is left alone, except that the fallbacks (``except`` and ``else`` branches) of an
import yield to it.

Sources are parsed, never imported, so scanning a package runs none of its code.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_Scope = dict[str, str | None]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class Document:
    """One documented function: its dotted name, cleaned docstring and sorted labels."""

    name: str
    docstring: str
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the vectoriser reads: the name as words, then the docstring."""
        return f"{self.name.replace('.', ' ').replace('_', ' ')}\n{self.docstring}"


def scan(source: bytes | str, module: str, package: str) -> list[Document]:
    """The documented functions of one module's source.

    Args:
        source: the source; bytes are decoded as Python decodes them.
        module: the module's dotted name.
        package: the package that its relative imports start from.
    """
    with warnings.catch_warnings():
        # Others' invalid escapes and the like are theirs to mend.
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    module_scope = _bindings(tree.body, package)
    documents = []
    for name, function in _functions(tree.body, module):
        docstring = ast.get_docstring(function)
        if docstring and docstring.strip():
            found = _calls(function, (module_scope,), package)
            # An absolute import may well name the module itself.
            labels = {label for label in found if label.rpartition(".")[0] not in ("", module)}
            documents.append(Document(name, docstring, tuple(sorted(labels))))
    return documents


def _functions(
    body: Iterable[ast.AST], prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(dotted name, node) of the functions and methods that a module's or class's body defines."""
    for node in body:
        if isinstance(node, _FUNCTIONS):
            yield f"{prefix}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}.{node.name}")
        elif isinstance(node, (ast.stmt, ast.ExceptHandler)):
            yield from _functions(ast.iter_child_nodes(node), prefix)


def _calls(
    function: ast.FunctionDef | ast.AsyncFunctionDef, outer: tuple[_Scope, ...], package: str
) -> set[str]:
    """The dotted names of the imported callables that a function's body calls.

    Args:
        function: the function; its decorators, defaults and annotations are no part of the body.
        outer: the scopes around it, innermost first.
        package: the package that relative imports start from.
    """
    found: set[str] = set()
    # Each entry: nodes to read, the scopes they see, and the scopes that a function defined there
    # sees. The two differ in a class's body, whose names its methods do not see.
    inside = (_function_scope(function.args, function.body, package), *outer)
    todo: list[tuple[Iterable[ast.AST], tuple[_Scope, ...], tuple[_Scope, ...]]]
    todo = [(function.body, inside, inside)]
    while todo:
        nodes, seen, passed_on = todo.pop()
        for node in nodes:
            if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
                body = [node.body] if isinstance(node, ast.Lambda) else node.body
                inside = (_function_scope(node.args, body, package), *passed_on)
                todo.append((body, inside, inside))
                defaults = (d for d in (*node.args.defaults, *node.args.kw_defaults) if d)
                todo.append((defaults, seen, passed_on))
                todo.append((getattr(node, "decorator_list", ()), seen, passed_on))
            elif isinstance(node, ast.ClassDef):
                inside = (_bindings(node.body, package), *passed_on)
                todo.append((node.body, inside, passed_on))
                around = (*node.decorator_list, *node.bases, *node.keywords)
                todo.append((around, seen, passed_on))
            elif isinstance(node, _COMPREHENSIONS):
                targets = [generator.target for generator in node.generators]
                inside = (_bindings(targets, package), *seen)
                # The first iterable is evaluated outside the comprehension.
                todo.append(([node.generators[0].iter], seen, passed_on))
                todo.append((_inside_comprehension(node), inside, (inside[0], *passed_on)))
            else:
                if isinstance(node, ast.Call):
                    label = _resolve(node.func, seen)
                    if label is not None:
                        found.add(label)
                todo.append((ast.iter_child_nodes(node), seen, passed_on))
    return found


def _inside_comprehension(node: ast.AST) -> Iterator[ast.AST]:
    """What a comprehension evaluates in its own scope: all but the first iterable."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.comprehension):
            yield child
        else:
            yield from child.ifs
            if child is not node.generators[0]:  # type: ignore[attr-defined]
                yield child.iter


def _resolve(callee: ast.expr, scopes: tuple[_Scope, ...]) -> str | None:
    """The dotted name of a called expression, or None if it is not an imported name's."""
    attributes: list[str] = []
    while isinstance(callee, ast.Attribute):
        attributes.append(callee.attr)
        callee = callee.value
    if not isinstance(callee, ast.Name):
        return None
    for scope in scopes:
        if callee.id in scope:
            target = scope[callee.id]
            return None if target is None else ".".join([target, *reversed(attributes)])
    return None


def _function_scope(arguments: ast.arguments, body: Iterable[ast.AST], package: str) -> _Scope:
    """The names that a function or lambda binds."""
    scope = _bindings(body, package)
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    scope.update((argument.arg, None) for argument in named)
    return scope


def _bindings(nodes: Iterable[ast.AST], package: str) -> _Scope:
    """The names that one scope's nodes bind: to an import's dotted name, or to None."""
    scope: _Scope = {}
    elsewhere: set[str] = set()
    # A stack, last in first out, that is nevertheless read in source order: later imports win.
    todo = [(node, False) for node in nodes][::-1]
    while todo:
        node, fallback = todo.pop()
        for name, target in _bound_names(node, package):
            if name not in scope:
                scope[name] = target
            elif fallback:
                scope[name] = scope[name] or target
            else:
                scope[name] = target if scope[name] else None
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            elsewhere.update(node.names)
        children: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            children = ()
        elif isinstance(node, ast.comprehension):
            # Its target is its own; an assignment expression inside binds out here.
            children = (node.iter, *node.ifs)
        branches = node.orelse if isinstance(node, ast.If) else ()
        todo.extend(
            [
                (child, fallback or isinstance(child, ast.ExceptHandler) or child in branches)
                for child in children
            ][::-1]
        )
    return {name: target for name, target in scope.items() if name not in elsewhere}


def _bound_names(node: ast.AST, package: str) -> Iterator[tuple[str, str | None]]:
    """(name, the import's dotted name or None) of what one node by itself binds."""
    match node:
        case ast.Import():
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
        case ast.ImportFrom():
            base = _import_base(node, package)
            for alias in node.names:
                if alias.name != "*":
                    yield alias.asname or alias.name, base and f"{base}.{alias.name}"
        case ast.Name(ctx=ast.Store() | ast.Del()):
            yield node.id, None
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name, None
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name, None
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name, None


def _import_base(node: ast.ImportFrom, package: str) -> str | None:
    """The absolute module that a ``from`` import names, or None if it climbs out of the package."""
    if node.level == 0:
        return node.module
    parents = package.split(".")
    if node.level > len(parents):
        return None
    return ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
