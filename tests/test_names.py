"""Somebody's own dataset, model or method by "package.module:name": found, or refused in one line."""

from fractions import Fraction
from pathlib import Path

import pytest

from svp.errors import SettingError, SvpError, UnknownName
from svp.names import resolve


def test_functions_and_classes_are_found() -> None:
    assert resolve("fractions:Fraction") is Fraction
    assert resolve("os.path:join")("a", "b") == str(Path("a", "b"))


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("fractions", SettingError, "write package.module:function"),
        (":Fraction", SettingError, "write package.module:function"),
        (".fractions:Fraction", SettingError, "write package.module:function"),
        ("fractions:", SettingError, "write package.module:function"),
        ("no_such_package.deep:make", SettingError, "No module named 'no_such_package'; install it, or set PYTHONPATH"),
        ("fractions:Fractoin", UnknownName, "did you mean 'Fraction'"),
        ("math:pi", SettingError, "is 3.14159"),
        (
            "it_raises:make",
            SettingError,
            "it_raises:make cannot be imported: ZeroDivisionError: division by zero; mend",
        ),
        ("half_written:make", SettingError, "SyntaxError"),
        ("needs_more:make", SettingError, "no_such_package"),
    ],
)
def test_what_cannot_be_is_one_line(
    path: str, kind: type[SvpError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "it_raises.py").write_text("1 / 0\n")
    (tmp_path / "half_written.py").write_text("def make(:\n")
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    with pytest.raises(kind) as caught:
        resolve(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
