"""What made a result: the code that runs, read and not run; the versions, looked up once."""

import ast
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from svp import provenance
from svp.data.base import Dataset


def test_code_is_what_runs_not_how_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "digested"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    def of(source: str, where: str = "a.py") -> str:
        (package / where).write_text(source)
        provenance.code_digests.cache_clear()
        return provenance.code_digest(("digested",))

    plain = of('def f(x):\n    """Doc."""\n    return x + 1\n')
    assert of("# comment\n\ndef f(x):\n    return (x + 1)  # more\n") == plain
    assert of('"""Module."""\ndef f(x):\n    """Other."""\n    return x + 1\n') == plain
    assert of("def f(x):\n    return x + 2\n") != plain
    assert of("def f(x):\n    return x + 1\n") == plain
    assert of("y = 1\n", "inner/deep.py") != plain  # packages are taken whole


def test_code_is_the_same_in_a_python_whose_trees_have_more_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 3.12 gave functions and classes one that is empty as a rule."""
    code = ast.parse("def f(x, *, y=None):\n    return x[1:], {**y}, 'é', 1j\n\n\nclass A: pass\n")
    before = provenance._written(code)
    for kind in (ast.FunctionDef, ast.ClassDef, ast.Slice):
        monkeypatch.setattr(kind, "_fields", (*kind._fields, "more"))
        for node in ast.walk(code):
            if isinstance(node, kind):
                node.more = []  # type: ignore[union-attr]
    assert provenance._written(code) == before


def test_code_that_differs_is_written_otherwise() -> None:
    lines = (
        *(
            "f(a, b=None)",
            "f(a)",
            "f(b=None)",
            "x[1:]",
            "x[:1]",
            "x[::1]",
            "{**a}",
            "{None: a}",
            "1",
            "True",
            "1.0",
            "'1'",
            "b'1'",
        ),
        *(
            "None",
            "...",
            "()",
            "[]",
            "''",
            "def f(x): pass",
            "def f(*x): pass",
            "def f(*, x): pass",
            "def f(x, /): pass",
        ),
        *("a = b", "a: b", "a += b", "f'{a}'", "f'{a!r}'", "f'{a:b}'", "lambda: 0", "yield", "yield None", "u'1'"),
    )
    assert len({provenance._written(ast.parse(line)) for line in lines}) == len(lines)


def test_code_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "unrunnable"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("raise SystemExit('a was run')\n")
    (package / "inner" / "__init__.py").write_text("import a_package_that_nobody_has\n")
    (package / "inner" / "deep.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = {name for name in sys.modules if name.startswith("unrunnable")}
    whole = provenance.code_digest(("unrunnable",))
    assert {name for name in sys.modules if name.startswith("unrunnable")} == before == set()
    (package / "inner" / "deep.py").write_text("x = 2\n")
    provenance.code_digests.cache_clear()
    assert provenance.code_digest(("unrunnable",)) != whole
    assert list(provenance.code_digests(("unrunnable",))) == [
        "unrunnable",
        "unrunnable.a",
        "unrunnable.inner",
        "unrunnable.inner.deep",
    ]
    # One of its modules: only that file.
    provenance.code_digests.cache_clear()
    alone = provenance.code_digest(("unrunnable.a",))
    (package / "a.py").write_text("raise SystemExit('and changed')\n")
    provenance.code_digests.cache_clear()
    assert provenance.code_digest(("unrunnable.a",)) != alone
    provenance.code_digests.cache_clear()


def test_modules_without_a_file_count_by_their_name() -> None:
    names_ = [("sys",), ("no_such_module",), ("no_such_package.module",), ("__main__",), ()]
    assert len({provenance.code_digest(modules) for modules in names_}) == len(names_)
    assert provenance.code_digest(("sys", "svp.chance")) == provenance.code_digest(("svp.chance", "sys", "sys"))


def test_versions_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is installed; what is not may come meanwhile."""
    looked: list[str] = []

    def counted(name: str) -> str:
        looked.append(name)
        return version(name)

    monkeypatch.setattr(provenance, "version", counted)
    provenance.installed.cache_clear()
    data = Dataset.from_arrays(np.zeros((2, 1)), [0, 1])
    first = provenance.environment(data)
    missing = sorted(name for name, found in first["packages"].items() if found == "not installed")
    assert sorted(looked) == sorted([*provenance.PACKAGES, "selection-via-proxy"])
    looked.clear()
    assert provenance.environment(data) == first
    assert sorted(looked) == missing
    first["packages"]["numpy"] = "99"  # whoever asked may do with it what they like
    assert provenance.environment(data)["packages"]["numpy"] == np.__version__
