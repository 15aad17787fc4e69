"""What a call resolves to, and which functions are documents."""

from __future__ import annotations

from textwrap import dedent

import pytest

from ray_xml.calls import Document, scan


def labels(source: str, *, module: str = "pkg.sub.mod", package: str = "pkg.sub") -> list[str]:
    """The labels of the one documented function of a module."""
    (document,) = scan(dedent(source), module, package)
    return list(document.labels)


def body_labels(imports: str, body: str, signature: str = "self") -> list[str]:
    """The labels of a documented function with the given body, one statement a line."""
    lines = [imports, f"def f({signature}):", "    'Documented.'"]
    return labels("\n".join([*lines, *(f"    {line}" for line in body.splitlines())]))


@pytest.mark.parametrize(
    ("imports", "call", "expected"),
    [
        ("import numpy as np", "np.linalg.norm(x)", "numpy.linalg.norm"),
        ("import a.b", "a.b.c()", "a.b.c"),
        ("import a.b, a.d", "a.d.c()", "a.d.c"),
        ("import a.b as ab", "ab.c()", "a.b.c"),
        ("from x import y", "y()", "x.y"),
        ("from x import y as z", "z()", "x.y"),
        ("from x.w import y as z", "z.make()", "x.w.y.make"),
        ("from . import near", "near.g()", "pkg.sub.near.g"),
        ("from .near import g", "g()", "pkg.sub.near.g"),
        ("from .. import up", "up.g()", "pkg.up.g"),
        ("from ..up.on import g", "g()", "pkg.up.on.g"),
        ("from pkg.sub.other import g", "g()", "pkg.sub.other.g"),
    ],
)
def test_imports_resolve(imports: str, call: str, expected: str) -> None:
    assert body_labels(imports, call) == [expected]


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("", "len(x)"),  # a builtin
        ("", "undefined(x)"),
        ("from x import *", "anything()"),
        ("from .... import far", "far.g()"),  # climbs out of the package
        ("from pkg.sub.mod import g", "g()"),  # the module itself
        ("import whole", "whole()"),  # a module is no function
        ("from x import y", "y"),  # named, not called
        ("from x import y", "y[0]()"),
        ("from x import y\ndef y(): ...", "y()"),
        ("from x import y\ny = wrap(y)", "y()"),
        ("from x import y\nclass y: ...", "y()"),
        ("def g(): ...", "g()"),
    ],
)
def test_what_is_not_an_imported_function_is_no_label(imports: str, call: str) -> None:
    assert body_labels(imports, call) == []


def test_a_package_is_its_own_base_for_relative_imports() -> None:
    source = """
        from .near import g
        def f():
            "Documented."
            g()
    """
    assert labels(source, module="pkg", package="pkg") == ["pkg.near.g"]


@pytest.mark.parametrize(
    "body",
    [
        "np = x\nnp.sum()",
        "np.sum()\nnp = x",  # an assignment anywhere makes a name local
        "for np in x: np.sum()",
        "for _, (a, *np) in x: np.sum()",
        "with x as np: np.sum()",
        "if (np := x): np.sum()",
        "try: x\nexcept E as np: np.sum()",
        "[np.sum() for np in x]",
        "{a: np.sum() for a in x for np in a}",
        "[(np := a) for a in x]\nnp.sum()",
        "(lambda np: np.sum())",
        "def np(): ...\nnp.sum()",
        "class np: ...\nnp.sum()",
        "def g(np): np.sum()",
        "def g(*np): np.sum()",
        "match x:\n    case [np, *_]: np.sum()",
        "match x:\n    case {'a': 1, **np}: np.sum()",
        "import other as np\nnp = x\nnp.sum()",
        "class C:\n    np = x\n    y = np.sum()",
        "def g():\n    np = x\n    def h(): np.sum()",
        "del np\nnp.sum()",
    ],
)
def test_local_names_shadow(body: str) -> None:
    assert body_labels("import numpy as np", body, "x") == []


@pytest.mark.parametrize("signature", ["np", "np, /", "*, np", "*np", "**np", "x, np=None"])
def test_parameters_shadow(signature: str) -> None:
    assert body_labels("import numpy as np", "np.sum()", signature) == []
    assert body_labels("", "import numpy as np\nnp.sum()", signature) == []


@pytest.mark.parametrize(
    "body",
    [
        "[a for a in np.sum(x)]",
        "[np for np in np.sum(x)]",  # the first iterable is read outside the comprehension
        "[np.sum(a) for a in x if a]",
        "lambda x: np.sum(x)",
        "def g(): return np.sum(x)",
        "async def g(a=np.sum(x)): ...",
        "@np.sum\ndef g(np): ...\n@np.sum(x)\ndef h(np): ...",
        "class C:\n    np = 1\n    def m(self): np.sum()",  # methods do not see class names
        "class C(np.sum(x)): ...",
        "global np\nnp = 1\nnp.sum()",
        "x.y(np.sum(x).z()).w()",
        "np.x = 1\nnp.sum()",
        "f'{np.sum(x)}'",
        "def g():\n    np = 1\nnp.sum()",
        "with np.sum(x) as y: ...",
    ],
)
def test_names_that_nothing_shadows_resolve(body: str) -> None:
    assert body_labels("import numpy as np", body, "x") == ["numpy.sum"]


def test_imports_inside_functions_resolve_there_alone() -> None:
    source = """
        import numpy as np
        def f(x):
            "First."
            import cupy as np
            from .near import g
            def inner(): return g(np.sum(x))
        def h(x):
            "Second."
            return g(np.sum(x))
    """
    first, second = scan(dedent(source), "pkg.mod", "pkg")
    assert first.labels == ("cupy.sum", "pkg.near.g")
    assert second.labels == ("numpy.sum",)


@pytest.mark.parametrize(
    "imports",
    [
        "try: import fast as m\nexcept ImportError: m = None",
        "try: import fast as m\nexcept ImportError: import slow as m",
        "if new: import fast as m\nelse: import slow as m",
        "if old: import fast as m\nelif older: m = x\nelse: m = None",
        "if old: m = None\nelse: import fast as m",
        "import slow as m\nimport fast as m",
    ],
)
def test_an_import_wins_over_its_fallbacks(imports: str) -> None:
    assert body_labels(imports, "m.go()") == ["fast.go"]


def test_documents_are_the_documented_functions_and_methods() -> None:
    source = '''
        from x import y, z
        class Outer:
            """A class is no document."""
            def method(self):
                """Does   it.

                    Indented.
                """
                y(); z(); y()
            class Inner:
                async def deep(self): "Deep."
        def undocumented(): y()
        def blank(): "  "
        if y:
            def conditional():
                "Conditional."
                def nested(): "No name leads here."
        try: ...
        except ImportError:
            def fallback(): "Fallback."
    '''
    documents = scan(dedent(source), "pkg.read_mod", "pkg")
    assert documents[0] == Document(
        "pkg.read_mod.Outer.method", "Does   it.\n\nIndented.", ("x.y", "x.z")
    )
    assert documents[0].text.splitlines()[0] == "pkg read mod Outer method"
    assert [document.name.removeprefix("pkg.read_mod.") for document in documents[1:]] == [
        "Outer.Inner.deep",
        "conditional",
        "fallback",
    ]
