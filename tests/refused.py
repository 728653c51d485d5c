"""How every named error has to be: of its kind, on one line, with the words that matter."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from svp.errors import SvpError


@contextmanager
def refused(kind: type[SvpError], *words: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said, f"{word!r} is not in {said}"
