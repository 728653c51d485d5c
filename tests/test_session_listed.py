"""Sessions that begin with the list of their photos: these are decoded when they are first needed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import svp
from svp.config import SessionConfig
from svp.errors import DataError, RunChanged, SettingError, StorageError, UnknownName
from svp.labels import LabelStore
from svp.serve.cards import cards_of
from svp.workflows.session import Session
from tests.refused import refused

pytestmark = pytest.mark.filterwarnings("ignore::svp.errors.SvpWarning")  # of what is left out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 photos of two shades, numbered; every fourth in a folder."""
    for i in range(40):
        path = tmp_path / "photos" / ("more" if i % 4 == 0 else "") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 90, (8, 8, 3)) + 150 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "photos"


def config(photos: Path, **more: Any) -> SessionConfig:
    model = {"model": "logistic"}
    values = {"dataset": str(photos), "classes": ["dark", "light"], "image_size": 8, "proxy": model, "target": model}
    return SessionConfig.make(values | more)


def label_of(session: Session, id_: int) -> int:
    return int(Path(session.store.keys([id_])[id_]).stem) % 2


def answer(session: Session, ids: Any) -> None:
    session.tell({int(i): label_of(session, int(i)) for i in ids}, who="ann")


def test_the_first_question_is_that_of_photos_that_were_read(photos: Path, tmp_path: Path) -> None:
    """Ids and keys too; and so are the questions after it."""
    questions = []
    for name, make in (("listed", Session.begin), ("read", Session.create)):
        with make(tmp_path / name, config(photos)) as session:
            assert session.store.has_unread() == (name == "listed")
            first = session.ask(8, now=True)
            assert session.is_read == (name == "read")
            answer(session, first.ids)
            second = session.ask(8)
            assert not session.store.has_unread()
            keys = session.store.keys(session.dataset.ids.tolist())
            questions.append((first.ids.tolist(), first.origin, second.ids.tolist(), second.origin, keys))
    assert questions[0] == questions[1]


def test_nothing_is_decoded_before_it_is_needed(photos: Path, tmp_path: Path) -> None:
    with Session.begin(tmp_path / "s", config(photos, cache=str(tmp_path / "cache"))) as session:
        answer(session, session.ask(8, now=True).ids)
        assert (session.status()["labelled"], session.n_examples) == (8, 40)
        assert not (tmp_path / "cache").exists()
        session.train()
        assert (tmp_path / "cache").exists()


def test_what_cannot_be_read_is_left_out_once_that_shows(photos: Path, tmp_path: Path) -> None:
    broken = {"01.png": b"no photo", "more/00.png": (photos / "more" / "00.png").read_bytes()[:60]}
    for key, content in broken.items():
        (photos / key).write_bytes(content)
    with Session.begin(tmp_path / "s", config(photos)) as session:
        batch = session.ask(40, now=True)
        shown = [card.key for card in cards_of(session, session.store.waiting())]
        assert not session.is_read
        assert set(shown) == set(session.store.keys(batch.ids.tolist()).values()) - {"01.png"}  # the other has a head
        answer(session, batch.ids)
        session.train()
        assert sorted(session.status()["gone"]) == sorted(broken)
        assert session.status()["labelled"] == 38
        assert len(session.dataset) == 38
    # A photo that can be read after all is there again, under its number.
    Image.new("RGB", (8, 8)).save(photos / "01.png")
    with Session.open(tmp_path / "s") as again:
        assert len(again.dataset) == 39
        assert again.status()["gone"] == ["more/00.png"]
        assert again.status()["labelled"] == 39


def test_where_nothing_can_be_read_it_says_why(photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no photo")
    with Session.begin(tmp_path / "s", config(photos)) as session:
        answer(session, session.ask(8, now=True).ids)
        with refused(DataError, "no image can be read: 01.png (not an image that Pillow knows), 02.png"):
            session.train()
        assert session.status()["labelled"] == 8


def test_from_its_first_reading_on_a_photo_that_changes_is_noticed(photos: Path, tmp_path: Path) -> None:
    with Session.begin(tmp_path / "s", config(photos)) as session:
        answer(session, session.ask(8, now=True).ids)
        Image.new("RGB", (8, 8)).save(photos / "03.png")  # nobody has seen it
        session.train()
        assert session.status()["changed"] == []
    Image.new("RGB", (8, 8), "white").save(photos / "03.png")
    with Session.open(tmp_path / "s") as again:
        assert len(again.dataset) == 39
        assert again.status()["changed"] == ["03.png"]


def test_it_goes_on_by_the_same_settings_and_by_no_others(photos: Path, tmp_path: Path) -> None:
    with Session.begin(tmp_path / "s", config(photos)) as session:
        asked = session.ask(8, now=True).ids.tolist()
    with refused(RunChanged, "seed was 0, is now 1"):
        Session.begin(tmp_path / "s", config(photos, seed=1))
    with refused(RunChanged, "seed was 0, is now 1"):
        Session.create(tmp_path / "s", config(photos, seed=1))
    for go_on in (Session.begin, Session.create):
        with go_on(tmp_path / "s", config(photos)) as session:
            waiting = session.store.open_question()
            assert waiting is not None
            assert waiting.ids.tolist() == asked
            assert session.dataset.ids.tolist() == list(range(40))


def test_one_that_nobody_was_asked_in_is_begun_anew_by_other_settings(photos: Path, tmp_path: Path) -> None:
    Session.begin(tmp_path / "s", config(photos)).close()
    with Session.begin(tmp_path / "s", config(photos, classes=["night", "day"])) as session:
        assert session.classes == ("night", "day")
        assert session.store.n_examples() == 40


def test_a_beginning_that_was_cut_off_is_gone_on_with(photos: Path, tmp_path: Path) -> None:
    """Killed between the store and its examples."""
    Session.begin(tmp_path / "s", config(photos)).close()
    (tmp_path / "s" / "labels.sqlite").unlink()
    LabelStore.create(tmp_path / "s" / "labels.sqlite", ["dark", "light"]).close()
    with Session.begin(tmp_path / "s", config(photos)) as session:
        assert (session.store.n_examples(), session.store.has_unread()) == (40, True)


@pytest.mark.parametrize("read", [False, True])
def test_its_history_is_another_way_back(read: bool, photos: Path, tmp_path: Path) -> None:
    with Session.begin(tmp_path / "s", config(photos)) as session:
        answer(session, session.ask(8, now=True).ids)
        if read:
            session.train()
        session.export_history(tmp_path / "history.jsonl")
        examples = session.store.examples()
    with Session.restore(tmp_path / "t", tmp_path / "history.jsonl") as again:
        assert again.store.examples() == examples
        assert again.store.has_unread() == (not read)
        assert len(again.dataset) == 40


def test_what_needs_the_photos_first_reads_them(photos: Path, tmp_path: Path) -> None:
    """Embeddings from which the first question is chosen, and a photo that is to be refused."""
    np.save(tmp_path / "e.npy", np.eye(40, dtype=np.float32))
    frozen = {"model": "logistic", "features": {"source": str(tmp_path / "e.npy")}}
    for name, more in {
        "frozen": {"proxy": frozen},
        "target": {"target": frozen},
        "strict": {"on_error": "refuse"},
    }.items():
        with Session.begin(tmp_path / name, config(photos, **more)) as session:
            assert session.is_read
            assert not session.store.has_unread()
    (photos / "01.png").write_bytes(b"no photo")
    with refused(DataError, "01.png"):
        Session.begin(tmp_path / "refused", config(photos, on_error="refuse"))


def test_what_cannot_end_well_is_refused_before_anything_is_made(photos: Path, tmp_path: Path) -> None:
    for kind, words, more in (
        (SettingError, "image_size", {"image_size": 0}),
        (SettingError, "two classes", {"classes": ["one"]}),
        (SettingError, "folder of photos", {"text_column": ["text"]}),
        (UnknownName, "resnet", {"target": {"model": "resnett20"}}),
    ):
        with refused(kind, words):
            Session.begin(tmp_path / "s", config(photos, **more))
    (tmp_path / "empty").mkdir()
    with refused(DataError, "no photos"):
        Session.begin(tmp_path / "s", config(tmp_path / "empty"))
    with refused(StorageError, "inside the data"):
        Session.begin(photos / "s", config(photos))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with refused(StorageError, "thesis.txt"):
        Session.begin(tmp_path / "other", config(photos))
    assert not (tmp_path / "s").exists()
    assert not (photos / "s").exists()


def test_links_out_of_the_pool_are_shown_by_their_pixels(photos: Path, tmp_path: Path) -> None:
    (photos / "03.png").rename(tmp_path / "03.png")
    (photos / "03.png").symlink_to(tmp_path / "03.png")
    with Session.begin(tmp_path / "s", config(photos)) as session:
        session.ask(40, now=True)
        cards = {card.key: card for card in cards_of(session, session.store.waiting())}
    assert len(cards) == 40
    assert [key for key, card in cards.items() if card.pixels is not None] == ["03.png"]


def test_a_model_of_it_is_told_of_again(photos: Path, tmp_path: Path) -> None:
    """Classifiers are kept as their examples: what a session was begun with is found again by what was read."""
    with Session.begin(tmp_path / "s", config(photos)) as session:
        answer(session, session.ask(12, now=True).ids)
        done = session.finish()
    assert (done.n_labelled, done.n_predicted) == (12, 28)
    predicted = svp.load_model(tmp_path / "s").predict(str(photos))
    numbers = [int(Path(key).stem) for key in predicted.keys or ()]
    assert predicted.predicted.tolist() == [number % 2 for number in numbers]
