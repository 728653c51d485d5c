"""Who may import whom, who trains, who writes: the rules of the layout, read off the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import svp
from svp.provenance import PACKAGES

ROOT = Path(svp.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# What each part may import of svp itself, beside its own part. Sideways: errors, names, config, chance (numbers), files (whole
# or not there), provenance (what made it), runs (state), engine (where work runs).
SIDEWAYS = {"errors", "names", "machine", "config", "chance", "files", "provenance", "runs", "engine"}
MAY = {
    "errors": set(),
    "names": {"errors"},
    "engine": {"errors", "names"},
    "chance": {"errors"},
    "config": {"errors"},
    "data": {"errors", "names", "machine", "chance", "config", "files", "mapped", "engine"},
    "sealed": {"errors", "files", "write_ahead"},
    "write_ahead": set(),
    "label_tables": {"sealed"},
    "labels": {"errors", "sealed", "label_tables"},
    "files": {"errors"},
    "provenance": {"config", "data", "files"},
    # The last three by name, when asked.
    "runs": {"errors", "config", "data", "files", "provenance", "select", "words", "report"},
    "signals": {"errors", "files"},
    "machine": set(),
    "select": {"errors", "names", "machine", "chance", "files"},
    "learners": SIDEWAYS | {"data", "signals"},
    "mapped": {"errors"},
    "tables": {"errors", "files"},
    "columns": {"errors", "mapped", "tables"},  # files to arrays
    "forms": {"errors", "data", "columns", "mapped", "tables"},  # a data set on disk, and a part of it
    "subset": {"errors", "files", "data", "select", "columns", "forms"},
    "exchange": {"errors", "files", "tables"},  # questions and answers in files
    "evaluate": {"errors"},
    "audit": {"chance", "evaluate"},
    "separation": {"chance"},
    "rules": {"select"},
    "adviser": {"errors", "select", "rules", "words"},
    "words": set(),
    "workflows": SIDEWAYS
    | {
        "data",
        "learners",
        "signals",
        "select",
        "labels",
        "evaluate",
        "audit",
        "separation",
        "columns",
        "exchange",
        "tables",
        "words",
    },
    "serve": {"errors", "engine", "labels", "workflows"},  # the page: questions and answers, and what is shown of them
    "report": SIDEWAYS
    | {"data", "select", "evaluate", "words"},  # run folders and the data they were made from; no model, no workflow
}
COMMAND_LINE = {"cli", "__main__"}


def part_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(function: ast.expr) -> str:
    """The last part of what is called."""
    return getattr(function, "attr", getattr(function, "id", ""))


@cache
def imports(path: Path, *, at_import: bool = False) -> tuple[str, ...]:
    """Full names of imported modules; `at_import`: only those that importing the file itself imports."""
    return tuple(_imports(path, at_import))


def _imports(path: Path, at_import: bool) -> Iterator[str]:
    lazy: set[ast.AST] = set()
    for node in ast.walk(tree_of(path)):
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if deferred or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            lazy.update(ast.walk(node))
    package = ["svp", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if at_import and node in lazy:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""]).rstrip(".")
                if node.level
                else node.module
            )
            assert base is not None
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and name_of(node.func) == "import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


def own_parts(path: Path) -> set[str]:
    found = {name.split(".")[1] for name in imports(path) if name.startswith("svp.")}
    return {part for part in found if (ROOT / part).is_dir() or (ROOT / f"{part}.py").exists()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_parts_import_only_what_they_may(path: Path) -> None:
    part = part_of(path)
    if part in COMMAND_LINE | {"__init__"}:
        return
    assert part in MAY, f"{part} is new: say in tests/test_imports.py what it may import"
    assert own_parts(path) - {part} <= MAY[part]


def test_only_the_command_line_knows_the_report_and_nobody_the_command_line() -> None:
    for path in FILES:
        part, found = part_of(path), own_parts(path)
        if part not in COMMAND_LINE:
            assert not found & COMMAND_LINE, path
        if part not in COMMAND_LINE | {"report", "runs"}:
            assert "report" not in found, path
    # Run.report() names the report, and only when it is called.
    assert "svp.report" not in set(imports(ROOT / "runs.py", at_import=True))


def test_the_report_runs_no_model() -> None:
    for path in FILES:
        if part_of(path) == "report":
            assert not own_parts(path) & {"learners", "signals", "workflows"}, path
            assert "torch" not in {name.split(".")[0] for name in imports(path)}, path


def test_selection_and_signals_import_no_torch() -> None:
    for path in FILES:
        if part_of(path) in {
            "select",
            "signals",
            "config",
            "chance",
            "errors",
            "labels",
            "files",
            "provenance",
            "runs",
            "data",
            "evaluate",
            "audit",
            "adviser",
            "workflows",
        }:
            assert not {name for name in imports(path, at_import=True) if name.split(".")[0] == "torch"}, path


def test_the_version_of_whatever_a_stage_runs_is_recorded() -> None:
    bystanders = {"pydantic", "threadpoolctl"}  # settings, and how many threads a library takes
    called = {"PIL": "pillow", "sklearn": "scikit-learn"}
    stages = [path for path in FILES if part_of(path) in ("data", "learners", "select", "workflows", "signals")]
    named = {name.partition(".")[0] for path in stages for name in imports(path)}
    required = {
        str(node.args[0].value).partition(".")[0]
        for path in stages
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "require" and isinstance(node.args[0], ast.Constant)
    }
    found = {called.get(name, name) for name in (named | required) - sys.stdlib_module_names - {"svp"} - bystanders}
    assert {"numba", "torch", "pyarrow"} <= found <= set(PACKAGES)


@cache
def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}


def test_only_the_loop_trains() -> None:
    trainers = [
        path.name for path in FILES if any(name.endswith((".backward", "autograd.backward")) for name in calls(path))
    ]
    assert trainers == ["loop.py"]
    steppers = [path.name for path in FILES if "optimizer.step" in calls(path)]
    assert steppers == ["loop.py"]


def test_only_the_engine_starts_processes() -> None:
    starters = {"subprocess", "multiprocessing", "concurrent.futures.ProcessPoolExecutor", "os.fork", "os.posix_spawn"}
    starters |= {"os.system", "os.popen"}
    for path in FILES:
        found = {
            name
            for name in {*imports(path), *calls(path)}
            if name in starters or name.startswith(("os.spawn", "os.exec", "multiprocessing."))
        }
        assert bool(found) == (path == ROOT / "engine" / "processes.py"), (path, found)


WRITES = {"write_text", "write_bytes", "savez", "tofile", "open_memmap", "rename", "save_file", "makedirs", "mkdir"}


def writers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        if (last in WRITES and name != "write_bytes") or name in {
            "np.save",
            "torch.save",
            "pickle.dump",
            "os.replace",
            "shutil.move",
        }:
            found.add(name)  # bare write_bytes is that of files.py
        if last == "open" and name in {"open", "os.fdopen", "gzip.open", "path.open"}:
            modes = [
                a.value
                for a in [*node.args[1:], *(k.value for k in node.keywords if k.arg == "mode")]
                if isinstance(a, ast.Constant)
            ]
            if any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes):
                found.add(f"{name}({modes[0]!r})")
    return found


def test_only_files_runs_labels_and_signals_write() -> None:
    allowed = {"files.py", "runs.py", "sealed.py", "signals.py"}  # sealed.py is what labels.py stores by
    # Fetching a dataset keeps the archive, decoded images and texts are a cache; the report, and the chosen part of a data set,
    # are what people asked for.
    allowed |= {"data/cifar.py", "data/cache.py", "data/pixels.py", "data/text_cache.py"}
    allowed |= {"learners/encoded.py", "subset.py", "forms.py"}
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if name not in allowed and part_of(path) not in COMMAND_LINE | {"report"}:
            assert not writers(path), name
    assert writers(ROOT / "files.py")  # the test can see a writer


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_report_loads_no_workflow_and_no_learner() -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    # Libraries of charts take seconds to import and know nothing of svp: any object stands for them.
    charts = "import sys; from unittest.mock import MagicMock; sys.modules |= {'altair': MagicMock(), 'vl_convert': MagicMock()}"
    loaded = modules_after(f"{charts}; import svp.report, svp.report.page, svp.report.facts")
    assert "svp.report.page" in loaded
    assert not {name for name in loaded if name.startswith(("svp.workflows", "svp.learners", "svp.signals", "torch"))}


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    """One process after the other line: what is loaded stays loaded, so that the first line to load it is named."""
    heavy = {"torch", "pandas", "pyarrow", "sklearn", "altair", "numba", "ray"}
    lines = [
        "import svp",
        "import svp.config",
        "import svp; svp.CoresetConfig; svp.SvpError; dir(svp)",
        "import svp.select; svp.select",
        "svp.select('margin', 1, probs=[[0.5, 0.5], [0.9, 0.1]])",
        "import svp.workflows.coreset, svp.workflows.active, svp.labels, svp.signals",
    ]
    script = "\n".join(["import sys", *(f"{line}\nprint(*sys.modules)" for line in lines)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for line, modules in zip(lines, done.stdout.splitlines(), strict=True):
        allowed = {"sklearn"} if "workflows" in line else set()
        assert not {name.split(".")[0] for name in modules.split()} & heavy - allowed, line


def test_every_public_name_is_there() -> None:
    for name in svp.__all__:
        assert getattr(svp, name) is not None
        assert name in dir(svp)
    with pytest.raises(AttributeError, match="has no attribute 'selct'"):
        _ = svp.selct


@pytest.mark.parametrize(
    "code",
    [
        "import svp; before = svp.select; import svp.select; after = svp.select",
        "import svp.select; before = svp.select; from svp import select as after",
        "from svp import select as before; import svp.select.selection; import svp; after = svp.select",
        "import svp; before = svp.select; import svp.adviser; after = svp.select",
    ],
)
def test_select_is_the_same_callable_package_whatever_was_imported(code: str) -> None:
    script = f"""{code}
import sys
assert before is after is svp.select is sys.modules["svp.select"] if "svp" in globals() else before is after
chosen = [f("margin", 1, probs=[[0.9, 0.1], [0.5, 0.5]]).ids.tolist() for f in (before, after, after.select)]
assert chosen == [[1]] * 3, chosen
assert after.METHODS and after.Selection and after.score
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
