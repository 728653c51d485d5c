"""What a result was made by: a digest of the code that a stage runs, the versions, the machine, the data."""

import ast
import hashlib
import importlib.util
import json
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from svp.config import BY_CONTENT
from svp.data.base import Dataset
from svp.files import Json, digest

# What stages run, and their results may depend on.
PACKAGES = (
    *("numpy", "scipy", "scikit-learn", "torch", "pillow", "pyarrow", "numba", "safetensors"),
    *(
        "timm",
        "torchvision",
        "model2vec",
        "tokenizers",
        "sentence-transformers",
        "transformers",
    ),  # where somebody has them
)


def code_digest(modules: tuple[str, ...]) -> str:
    """16 hexadecimal digits of the code of `modules` (packages whole); see `code_digests`."""
    return digest(json.dumps(code_digests(modules)))


@cache
def code_digests(modules: tuple[str, ...]) -> dict[str, str]:
    """16 hexadecimal digits of the code of each module (of packages, of all their modules); comments, layout and docstrings do
    not count.

    Files are read, not imported. A module without a file in Python (built in, compiled, gone) counts by its name.
    """
    files = {name: file for module in sorted(set(modules)) for name, file in _files(module).items()}
    return {name: "" if file is None else digest(_code(file)) for name, file in files.items()}


def _code(file: Path) -> str:
    return _written(_without_docstrings(ast.parse(file.read_bytes())))


def _files(module: str) -> dict[str, Path | None]:
    """The Python file of a module; of a package, those of all modules below it; None where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {module: None}
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return {module: origin}
    below = {
        path: path.relative_to(origin.parent).with_suffix("").parts for path in sorted(origin.parent.rglob("*.py"))
    }
    return {".".join((module, *parts)).removesuffix(".__init__"): path for path, parts in below.items()}


def _written(code: Any) -> str:
    """A tree of code in words, the same in every version of Python: `ast.dump` shows empty fields in some and not in others."""
    if isinstance(code, ast.AST):
        held = [
            f"{name}={_written(value)}" for name, value in ast.iter_fields(code) if value is not None and value != []
        ]
        return f"{type(code).__name__}({', '.join(held)})"
    if isinstance(code, list):
        return f"[{', '.join(map(_written, code))}]"
    return ascii(code)  # not repr, for which what is printable depends on the version


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return tree


@cache
def installed(package: str) -> str:
    """Its version, or PackageNotFoundError. Looked up once: that reads files, and what is imported stays as it is."""
    return version(package)


def environment(dataset: Dataset) -> Json:
    """What a result may depend on besides the settings: versions, machine, data."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = installed(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "dataset": {
            "name": dataset.name,
            "n": len(dataset),
            "n_test": 0 if dataset.test is None else len(dataset.test),
            "classes": list(dataset.classes),
            "class_counts": None
            if dataset.labels is None
            else np.bincount(dataset.labels, minlength=len(dataset.classes)).tolist(),
            "fingerprint": dataset.fingerprint,
            "problems": list(dataset.problems),
        },
        "svp": installed("selection-via-proxy"),
        "packages": packages,
        "python": platform.python_version(),
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": os.cpu_count(),
        },
    }


def contents(settings: Json) -> dict[str, str]:
    """Digests of the files that flat settings name and that count by their content.

    None of a file that cannot be read: whoever needs it says so. Cost: the files are read once.
    """
    digests = {}
    for name in BY_CONTENT:
        path = None if settings[name] is None else Path(settings[name]).expanduser()
        if path is not None and path.is_file():
            with path.open("rb") as file:
                digests[name] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return digests


def surroundings(environment: Json) -> Json:
    """What of an environment has to stay the same, flat: packages, machine, and which Python (3.12 adds up floats otherwise)."""
    python = ".".join(environment["python"].split(".")[:2])
    return {"Python": python, **environment["packages"], **environment["machine"]}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
