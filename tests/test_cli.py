"""The command line: exit codes, one line an error, settings from recipe and flags."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svp import cli
from svp.cli import commands
from svp.cli.flags import Common, configure, read_recipe, recipes
from svp.config import ActiveConfig, CoresetConfig, TrainConfig
from svp.errors import SettingError, SvpWarning
from svp.learners import settle
from svp.workflows.begin import settled

FAST = ["--proxy.model", "logistic", "--target.model", "logistic", "--method", "margin", "--quiet"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("svp.report.page._library", lambda: "")  # the charts' code, which takes seconds to put together


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line on stderr."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return int(left.value.code or 0), lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["coreset", "digitz"], 1, "did you mean 'digits'"),
        (["coreset", "digits", "--method", "margn"], 1, "did you mean 'margin'"),
        (["coreset", "digits", "--proxy.model", "preact9"], 1, "the nearest are 8 and 14"),
        (["coreset", "digits", "--proxy.model", "logistik"], 1, "did you mean 'logistic'"),
        (["coreset", "digits", "--proxy.epochs", "0"], 1, "proxy.epochs"),
        (["coreset", "digits", "--budget", "0"], 1, "keep 2 at least"),
        (["coreset", "digits", "--budget", "150%"], 1, "1346 candidates"),
        (["coreset", "digits", "--budget", "1347"], 1, "1346 candidates"),
        (["coreset", "nowhere/photos"], 1, "does not exist"),
        (["coreset", "cifar10", "--image-size", "8"], 1, "image_size"),
        (["coreset", "--recipe", "nothing"], 1, "svp list recipes"),
        (["coreset", "--recipe", "missing.toml"], 1, "missing.toml"),
        (["coreset", "--recipe", "digits-active"], 1, "the recipe digits-active is one for svp active"),
        (["active", "--recipe", "digits-coreset"], 1, "the recipe digits-coreset is one for svp coreset"),
        (["coreset", "photos", "--image-size", "0"], 1, "--image-size: give 1 or more; got '0'"),
        (
            ["coreset", "digits", "--control", "random,full"],
            1,
            "as in --control random --control full; got 'random,full'",
        ),
        (["coreset", "digits", "--seeds", "2.5"], 1, "--seeds: give a whole number; got '2.5'"),
        (["coreset", "digits", "--compute.precision", "fp16"], 1, "--compute.precision: give 'auto', 'fp32' or 'bf16'"),
        (["coreset", "digits", "--proxy", "logistic"], 1, "such as --proxy.model; got 'logistic'"),
        (["coreset", "digits", "--options", "3"], 1, "--options: give a table of names and values"),
        (["coreset", "digits", "--proxy.phases", "90", "1.0"], 1, "--proxy.phases: give an array"),
        (["active", "digits", "--labelled", "10,20"], 1, "'10,20'"),
        (["coreset"], 1, "'dataset' must be given"),
        (["active", "digits"], 1, "'labelled' must be given"),
        (["active", "digits", "--labelled", "100", "50"], 1, "must rise"),
        (["active", "digits", "--labelled", "100", "200", "--method", "forgetting"], 1, "unlabelled"),
        (["active", "digits", "--labelled", "100"], 1, "give two totals or more, such as [1000, 5000]"),
        (
            ["active", "digits", "--labelled", "9", "99", "--control", "random", "random"],
            1,
            "control names an arm twice",
        ),
        (["active", "digits", "--labelled", "100", "200", "--evaluate", "150"], 1, "none of the totals"),
        (["coreset", "digits", "--equal", "epochs", "epochs"], 1, "equal names an arm twice"),
        (["coreset", "digits", "--control", "random", "random"], 1, "control names an arm twice"),
        (["coreset", "digits", "--equal"], 1, "equal needs epochs"),
        (["coreset", "digits", "--dataset", "cifar10"], 1, "two datasets are named"),
        (["report", "nowhere"], 1, "is this a run folder"),
        (["report", "/dev/null"], 1, "is this a run folder"),
        (["coreset", "digits", "--seeds"], 2, "--seeds"),
        (["coreset", "digits", "and", "more"], 2, "and"),
        (["coreset", "digits", "--proxy.epoch", "3"], 2, "--proxy.epochs"),
        (["corset"], 2, "coreset"),
        (["list", "nothing"], 2, "methods"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = fails(capsys, *arguments)
    assert found == code
    assert words in line
    assert line.startswith("svp: ")
    assert not Path("runs").exists()  # nothing was begun


def test_own_code_that_raises_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_broken.py").write_text(
        "def data():\n    raise ValueError('boo\\nand more')\n"
        "def method(probs):\n    return probs.no_such_thing\n"
        "method.needs = ('probs',)\n"
    )
    code, line = fails(capsys, "coreset", "my_broken:data", "--quiet")
    assert (code, line) == (1, "svp: my_broken:data raised ValueError: boo and more; --debug shows where")
    with pytest.raises(SettingError) as caught:
        cli.main(["coreset", "my_broken:data", "--quiet", "--debug"])
    assert isinstance(caught.value.__cause__, ValueError)
    named = [word.replace("margin", "my_broken:method") for word in FAST]
    code, line = fails(capsys, "coreset", "digits", *named)
    assert code == 1
    assert "my_broken:method raised AttributeError: " in line
    assert line.endswith("; --debug shows where")
    np.save("probs.npy", [[0.5, 0.5]])
    for command in (["select", "my_broken:method", "--budget", "1"], ["score", "my_broken:method"]):
        code, line = fails(capsys, *command, "--probs", "probs.npy")
        assert code == 1
        assert line.startswith("svp: my_broken:method raised AttributeError: ")
        assert line.endswith("; --debug shows where")


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_ctrl_c_in_a_terminal_keeps_the_state_and_prints_the_line_that_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A terminal sends it to all processes of the group."""
    words = ["--proxy.model", "preact8", "--proxy.width", "0.25", "--proxy.epochs", "40", "--target.model", "logistic"]
    command = ["coreset", "digits", *words, "--method", "margin", "--budget", "9", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "svp", *command], stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        assert process.stderr is not None
        assert any("/40" in line for line in process.stderr)  # it trains
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=120)[1].splitlines()
    finally:
        process.kill()
    assert process.returncode == 130
    goes_on = f"svp {shlex.join(command)}"
    assert said[-1] == f"svp: interrupted; what was finished is kept. Go on with: {goes_on}"
    assert not any("Traceback" in text for text in said)
    assert not list(Path("run").rglob("done.json"))
    cli.main([*shlex.split(goes_on)[1:], "--quiet"])
    assert Path("run/selection.parquet").exists()


LONG = "x" * 300  # no system has such names: refused just as a folder of somebody else is


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([f"{LONG}/photos"], "svp: cannot read xxx"),
        (["cifar10", "--data", LONG], "svp: cannot read xxx"),
        (["digits", *FAST, "--out", f"{LONG}/run"], "svp: cannot write xxx"),
    ],
)
def test_a_place_that_cannot_be_looked_at_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, line = fails(capsys, "coreset", *arguments)
    assert code == 1
    assert line.startswith(says)
    assert "File name too long; " in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["list", "methods"], ["--help"]])
def test_a_full_disk_under_the_standard_output_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", "from svp.cli import main; main()", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("svp: No space left on device; ")


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    from svp.errors import UnknownName

    with pytest.raises(UnknownName):
        cli.main(["coreset", "digitz", "--debug"])


def test_a_run_twice_is_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["coreset", "digits", *FAST, "--control", "random", "full", "--json"]
    cli.main(arguments)
    first = json.loads(capsys.readouterr().out)
    cli.main(arguments)
    again = json.loads(capsys.readouterr().out)
    assert first == again
    assert len(list(Path("runs").iterdir())) == 1
    assert Path(first["selection"]).exists()


def test_the_demo_ends_in_verdicts_and_reports_and_again_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With classifiers in place of nets, which take no time; a second time nothing is made."""
    pytest.importorskip("altair")
    small = {"proxy": {"model": "logistic"}, "target": {"model": "sklearn.tree:DecisionTreeClassifier"}, "seeds": 1}
    monkeypatch.setattr(commands, "read_recipe", lambda name: {**read_recipe(name), **small})
    said, written = [], []
    for _ in range(2):
        cli.main(["demo", "--quiet"])
        said.append(capsys.readouterr().out.splitlines())
        written.append({path: path.stat().st_mtime_ns for path in Path("runs").rglob("done.json")})
    assert written[0] == written[1]
    assert len(written[0]) > 10
    assert said[0][:-1] == said[1][:-1]  # but for how long it took
    assert {"Core-set", "Active learning"} <= set(said[0])
    reports = [Path(line.partition("Report: ")[2]) for line in said[0] if "Report: " in line]
    assert [report.parent.name for report in reports] == ["coreset", "active"]
    assert all(report.exists() for report in reports)
    assert "Accuracy of sklearn.tree:DecisionTreeClassifier" in " ".join(said[0])
    assert said[0][-1].startswith("Done in ")


def test_a_training_of_few_steps_is_warned_of_on_stderr_and_in_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    few = (
        "--proxy.model linear --proxy.epochs 1 --proxy.lr 1e-6 --target.model logistic --method entropy --json --quiet"
    )
    with warnings.catch_warnings(action="default", category=SvpWarning):
        cli.main(["coreset", "digits", *few.split()])
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("svp: The proxy had only 11 steps of training in all (1,346 examples)")
    assert line.endswith("give --proxy.min-steps 400.")
    assert line.removeprefix("svp: ") in json.loads(said.out)["verdict"]


def test_changed_settings_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["coreset", "digits", *FAST, "--out", "run"])
    capsys.readouterr()
    code, line = fails(capsys, "coreset", "digits", *FAST, "--out", "run", "--budget", "10%")
    assert code == 1
    assert "budget" in line
    assert "10%" in line


def test_an_earlier_selection_trains_another_target(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["coreset", "digits", *FAST, "--out", "run", "--budget", "300"])
    capsys.readouterr()
    other = ["--target.model", "sklearn.naive_bayes:GaussianNB"]
    for flag in (["--method", "margin"], ["--proxy.model", "logistic"], ["--options.start", "3"]):
        code, line = fails(capsys, "coreset", "digits", *other, *flag, "--selection", "run/selection.parquet")
        assert code == 1
        assert f"{flag[0]} means nothing beside --selection" in line
    cli.main(["coreset", "digits", *other, "--selection", "run/selection.parquet", "--out", "next", "--json"])
    (arm,) = json.loads(capsys.readouterr().out)["arms"]
    assert (arm["arm"], arm["n"]) == ("selection", 300)


def test_interrupting_prints_the_line_that_resumes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    arguments = ["coreset", "digits", *FAST, "--proxy.options.C", "0.5", "--out", "my run"]
    with monkeypatch.context() as patched:
        patched.setattr("svp.workflows.work.Work.choose", interrupted)
        code, line = fails(capsys, *arguments)
    assert code == 130
    resume = line.partition("svp coreset")[2]
    assert "--out 'my run'" in resume
    cli.main(arguments)
    assert "Accuracy of logistic" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["cyclopts", "pydantic", "svp.workflows", "sklearn"])
def test_interrupting_while_a_module_is_being_imported_is_one_line_too(module: str) -> None:
    script = f"""
import sys
import warnings

class Interrupted:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from svp.cli import main
main(["coreset", "digits", "--proxy.model", "logistic", "--target.model", "logistic"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "svp coreset digits" in done.stderr


def test_flags_win_over_the_recipe_and_parts_keep_their_defaults() -> None:
    Path("mine.toml").write_text('dataset = "digits"\nbudget = 0.25\n[proxy]\nepochs = 3\n[target]\nepochs = 9\n')
    flags = commands.CoresetFlags.model_validate({"proxy": {"epochs": 4}, "control": ("random",)})
    config = configure(CoresetConfig, None, flags, Common(recipe="mine.toml"))
    assert (config.dataset, config.budget, config.control) == ("digits", 0.25, ("random",))
    assert (config.proxy.model, config.proxy.epochs) == ("preact8", 4)
    assert (config.target.model, config.target.epochs) == ("preact20", 9)


RECIPE = """
dataset = "digits"
method = "probcover"
options.delta = 0.5
[proxy]
model = "preact14"
epochs = 3
lr = 0.2
seeds = 2
[target]
model = "sklearn.ensemble:RandomForestClassifier"
options.n_estimators = 5
"""


def test_what_a_recipe_says_of_another_model_is_not_meant_for_this_one() -> None:
    Path("mine.toml").write_text(RECIPE)

    def made(**given: Any) -> CoresetConfig:
        flags = commands.CoresetFlags.model_validate(given)
        return configure(CoresetConfig, None, flags, Common(recipe="mine.toml"))

    logistic = made(proxy={"model": "logistic"}, target={"model": "logistic"}, method="margin")
    assert (logistic.proxy.lr, logistic.proxy.seeds) == (TrainConfig().lr, 2)  # averaging is for any model
    assert logistic.target.options == logistic.options == {}
    other = made(proxy={"model": "preact8"}, target={"options": {"max_depth": "3"}})
    assert (other.proxy.epochs, other.proxy.lr) == (3, 0.2)
    assert other.target.options == {"n_estimators": 5, "max_depth": 3}
    assert other.options == {"delta": 0.5}
    assert made(target={"model": other.target.model}).target == made().target
    for given in ({"target": {"epochs": "4"}}, {"proxy": {"model": "logistic", "epochs": "15"}}):
        with pytest.raises(SettingError, match=r"--(proxy|target).epochs means nothing to"):
            made(**given)


def test_what_a_recipe_says_of_a_model_with_defaults_of_its_own_is_meant_for_its_kind() -> None:
    Path("mine.toml").write_text(
        'dataset = "amazon-polarity"\nproxy = {model = "fasttext", epochs = 9, lr = 0.05}\n'
        'target = {model = "vdcnn29", epochs = 7, lr = 0.02}\n'
    )

    def made(proxy: str, target: str) -> CoresetConfig:
        flags = commands.CoresetFlags.model_validate({"proxy": {"model": proxy}, "target": {"model": target}})
        return settled(configure(CoresetConfig, None, flags, Common(recipe="mine.toml")), "proxy", "target")

    kin = made("fasttext", "vdcnn9")
    assert (kin.proxy.epochs, kin.proxy.lr, kin.target.epochs, kin.target.lr) == (9, 0.05, 7, 0.02)
    strangers = made("vdcnn9", "fasttext")
    defaults = [settle(TrainConfig(model=model)) for model in ("vdcnn9", "fasttext")]
    assert [strangers.proxy, strangers.target] == defaults


def test_arrays_of_arrays_are_spelled_one_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[CoresetConfig] = []

    def stop(config: CoresetConfig, **_: Any) -> None:
        made.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("svp.workflows.coreset.coreset", stop)
    with pytest.raises(SystemExit):
        cli.main(
            ["coreset", "digits", "--proxy.phases", "[1, 0.5]", "[2, 1]", "--compute.no-channels-last", "--seeds", "3"]
        )
    assert made[0].proxy.phases == ((1, 0.5), (2, 1))
    assert (made[0].compute.channels_last, made[0].seeds) == (False, 3)


def test_options_are_the_values_they_spell() -> None:
    given = {"proxy": {"options": {"C": "0.5", "n": "50", "deep": "true", "kind": "l2", "sizes": "[1, 2]"}}}
    flags = commands.CoresetFlags.model_validate(given)
    config = configure(CoresetConfig, "digits", flags, Common())
    assert config.proxy.options == {"C": 0.5, "n": 50, "deep": True, "kind": "l2", "sizes": [1, 2]}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_is_a_whole_configuration(name: str) -> None:
    values = read_recipe(name)
    config = (ActiveConfig if "labelled" in values else CoresetConfig).make(values)
    text = recipes()[name].read_text()
    assert f"--recipe {name}" in text
    assert "Cost:" in text
    assert config.control


def test_flags_are_the_settings_and_none_repeats(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["coreset", "--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    shown = [line.split()[0] for line in lines if line.startswith("--")]
    assert len(shown) == len(set(shown))
    for name in CoresetConfig(dataset="x").flat():
        if not name.endswith("options"):
            assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.parametrize("what", ["methods", "models", "datasets", "recipes"])
def test_lists(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list", what])
    lines = capsys.readouterr().out.splitlines()
    cli.main(["list", what, "--json"])
    known = json.loads(capsys.readouterr().out)
    assert len(lines) == len(known) > 1
    assert all(known.values())


def test_own_model_beside_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`package.module:name` is looked for where the command is given."""
    Path("svpownmodel.py").write_text(
        "from sklearn.naive_bayes import GaussianNB\n\n\nclass Mine(GaussianNB):\n    pass\n"
    )
    cli.main(["coreset", "digits", *[word.replace("logistic", "svpownmodel:Mine") for word in FAST]])
    assert "Accuracy of svpownmodel:Mine" in capsys.readouterr().out


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("quiet", [True, False])
def test_warnings_of_others_are_one_line_and_none_when_quiet(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    """Logistic regression that may take two steps alone says so at every fit."""
    short = ["--proxy.options.max_iter", "2", "--target.options.max_iter", "3"]
    cli.main(["coreset", "digits", *[word for word in FAST if quiet or word != "--quiet"], *short])
    lines = [line for line in capsys.readouterr().err.splitlines() if "arning" in line]
    if quiet:
        assert not lines
    else:
        (line,) = lines
        assert line.startswith("warning: ConvergenceWarning: ")
        assert line.endswith(" more)")


def test_settings_and_devices_that_a_classifier_cannot_use_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, "coreset", "digits", *FAST, "--proxy.lr", "0.5")
    assert code == 1
    assert "--proxy.lr means nothing to logistic; leave it out" in line
    code, line = fails(capsys, "coreset", "digits", *FAST, "--target.epochs", "40")  # its default, but given
    assert code == 1
    assert "--target.epochs means nothing to logistic" in line
    code, line = fails(capsys, "coreset", "digits", *FAST, "--compute.device", "cuda")
    assert code == 1
    assert "'cuda' is for nets" in line
    assert not Path("runs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_write_that_fails_in_the_middle_of_a_run_is_one_line_and_the_run_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real limit of the system: 20 kB a file, where the probabilities of the pool take 54."""
    import resource
    import signal

    fast = [word.replace("logistic", "sklearn.naive_bayes:GaussianNB") for word in FAST]
    arguments = ["coreset", "digits", *fast, "--out", "run", "--json"]
    limits, heard = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        code, line = fails(capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert code == 1
    assert re.fullmatch(r"svp: cannot write run/\S*/probs-0.npy: no file may .*raise the limit.* \(--out\)", line)
    model = Path("run/proxy/seed-0/model-0/done.json")
    before = model.stat().st_mtime_ns  # what was complete is intact, and is not made again
    cli.main(arguments)
    assert model.stat().st_mtime_ns == before
    assert Path("run/metrics.json").exists()


def test_times_are_never_written_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fast = [word.replace("logistic", "sklearn.naive_bayes:GaussianNB") for word in FAST]
    cli.main(["coreset", "digits", *fast, "--control", "full"])
    said = capsys.readouterr().out
    times = re.search(r"\(([\d.]+) m?s against ([\d.]+) m?s\)", said)
    assert times is not None
    assert min(map(float, times.groups())) > 0


@pytest.mark.filterwarnings("always::svp.errors.SvpWarning")
def test_photos_with_a_broken_one(capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(Path("photos", name, f"{i}.png"))
    Path("photos/cat/3.png").write_bytes(b"no image")
    code, line = fails(capsys, "coreset", "photos", *FAST, "--image-size", "8")
    assert code == 1
    assert "cat/3.png" in line
    assert "--on-error skip" in line
    Path("photos/dog/phone.heic").write_bytes(b"no image that is read here")
    cli.main(["coreset", "photos", *FAST, "--image-size", "8", "--on-error", "skip", "--out", "run"])
    printed, said = capsys.readouterr()
    assert "Accuracy of logistic" in printed
    assert "report.html" in printed  # it reads the folder again, and says nothing
    (line,) = said.splitlines()
    assert line.startswith("svp: photos: 2 files left out: cat/3.png: not an image")
    assert "1 file ending in .heic" in line
    problems = json.loads(Path("run/environment.json").read_text())["dataset"]["problems"]
    assert len(problems) == 2


def test_help_starts_without_torch_and_pandas() -> None:
    code = "import sys; from svp import cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "coreset" in done.stdout
    assert not loaded & {"torch", "pandas", "pyarrow", "sklearn", "numpy", "pydantic"}


def test_data_may_lie_elsewhere_when_a_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The fingerprint says that it is the same."""
    from tests.test_data_cifar import write_layout

    source = "svp.data.cifar:read_batches"
    write_layout(Path("one"), n=12)
    cli.main(["coreset", source, "--data", "one", *FAST, "--out", "run"])
    Path("one").rename("two")
    cli.main(["coreset", source, "--data", "two", *FAST, "--out", "run", "--control", "full"])
    assert "everything" in capsys.readouterr().out


def test_a_run_inside_its_data_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for c in "ab":
        for i in range(5):
            path = Path("photos", c, f"{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (100 * (c == "b"), i, i)).save(path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").resolve()))
    monkeypatch.chdir("photos")
    for where in ([], ["--out", "run"]):
        code, words = fails(capsys, "coreset", ".", "--image-size", "8", *FAST, *where)
        assert code == 1
        assert "inside the data (.)" in words
        assert "--out" in words
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]
