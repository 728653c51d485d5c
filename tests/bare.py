"""Run by `make bare` on a wheel installed without extras: python -m tests.bare BIN."""

import subprocess
import sys
import tempfile

bin_ = sys.argv[1]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([f"{bin_}/{command[0]}", *command[1:]], capture_output=True, text=True)


SELECT = """
import numpy as np, svp
probs = np.random.default_rng(0).dirichlet(np.ones(3), 50)
assert len(svp.select("margin", "10%", probs=probs)) == 5
"""

ON_FILES = """
import numpy as np
from svp.cli import main
np.save("probs.npy", np.random.default_rng(0).dirichlet(np.ones(3), 50))
main(["select", "margin", "--probs", "probs.npy", "--budget", "10%", "--out", "picks.parquet"])
main(["apply", "picks.parquet", "--data", "probs.npy", "--out", "kept.npy"])
assert np.load("kept.npy").shape == (5, 3)
"""

worked = run("svp", "list", "methods")
assert worked.returncode == 0, worked.stderr
assert "k_center" in worked.stdout
worked = run("svp", "list", "recipes")  # files beside the code, which a wheel may lack
assert "cifar10-coreset" in worked.stdout, worked
worked = run("python", "-c", SELECT)
assert worked.returncode == 0, worked.stderr
with tempfile.TemporaryDirectory() as folder:
    worked = run("python", "-c", f"import os; os.chdir({folder!r}){ON_FILES}")
    assert worked.returncode == 0, worked.stderr
worked = run(
    "svp",
    "coreset",
    "digits",
    "--proxy.model",
    "logistic",
    "--target.model",
    "logistic",
    "--method",
    "margin",
    "--out",
    f"{bin_}/../run",
    "--quiet",
)
assert worked.returncode == 0, worked.stderr
for extra, command in {"torch": ["demo"], "torch,": ["coreset", "digits"], "serve": ["session", "serve", "s"]}.items():
    refused = run("svp", *command)
    assert refused.returncode == 1, refused
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert f"pip install 'selection-via-proxy[{extra.rstrip(',')}" in refused.stderr, refused.stderr
print("bare install: ok")
