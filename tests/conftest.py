"""What holds for every test."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported; children inherit it

import pytest

from svp import machine

# Arrays of tests are so small that threads only wait for one another, and the tests themselves run side by side. Tests of
# threads say how many they want.
machine.n_cores = lambda: 1


@pytest.fixture(autouse=True, scope="session")
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded images go into a folder of the session, never into the user's own cache; and no test waits for a disk.

    What was written survives a killed process without fsync, too; a power cut is nothing that a test can show.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
