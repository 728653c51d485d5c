"""What "package.module:name" stands for: somebody's own dataset, model or method."""

import importlib
import re
from collections.abc import Callable
from typing import Any, cast

from svp.errors import SettingError, UnknownName, one_line

PATH = re.compile(r"\w+(\.\w+)*:\w+")


def resolve(path: str) -> Callable[..., Any]:
    """The function or class that `path` names; its module is imported.

    Raises SettingError where there is nothing to import or to call, UnknownName where the module has no such name.
    """
    if PATH.fullmatch(path) is None:
        raise SettingError(f"{path!r} names nothing; write package.module:function")
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of somebody's own may raise
        missing = isinstance(error, ModuleNotFoundError)
        step = "install it, or set PYTHONPATH to its folder" if missing else "mend that (--debug shows where)"
        raise SettingError(f"{path} cannot be imported: {one_line(error)}; {step}") from error
    if not hasattr(module, name):
        raise UnknownName(
            f"name in {module_name}", name, [known for known in vars(module) if not known.startswith("_")]
        )
    found = getattr(module, name)
    if not callable(found):
        raise SettingError(f"{path} is {found!r}, not a function or a class")
    return cast(Callable[..., Any], found)
