"""Texts with labels: Amazon reviews in their publishers' files, and any CSV, TSV, JSON lines or Parquet."""

import codecs
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from svp.data import text_cache
from svp.data.base import TEST_SHARE, Dataset, OnError, Progress, hold_out, printable, silent
from svp.data.cache import data_folder
from svp.data.parquet import IMAGES, names_of_classes
from svp.data.photos import some
from svp.data.shards import divided, known_by, visible
from svp.data.text_cache import Read
from svp.data.text_files import SUFFIXES, names_of
from svp.data.text_rows import Columns, Problems
from svp.data.texts import BLOCK, Texts
from svp.errors import DataError, SettingError, SvpWarning

# How columns of texts and of labels are called, in any case of letters. Images know fewer of labels (`parquet.LABELS`): beside a
# photo nobody has labelled, a rating or a category is a fact of it, and no class.
TEXTS = ("text", "sentence", "content", "review", "reviewtext", "comment", "body", "document", "message", "tweet")
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "polarity", "stars", "rating", "intent")
AMAZON = {  # the publishers' folder, and the classes of the labels 1, 2 ...
    "amazon-polarity": ("amazon_review_polarity_csv", ("negative", "positive")),
    "amazon-full": ("amazon_review_full_csv", ("1", "2", "3", "4", "5")),
}

_TOGETHER = 1 << 20  # hashes that are compared at once, from a half to as many
_MOST_BITS = 8  # of a hash by which they are told apart before: a file each

Ints = NDArray[np.int64]


def load(
    source: str | os.PathLike[str],
    text_column: str | Sequence[str] = (),
    label_column: str | None = None,
    encoding: str = "utf-8",
    quotes: bool | None = None,
    on_error: OnError = "refuse",
    test_share: float = TEST_SHARE,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """A dataset from the rows of a .csv, .tsv, .jsonl or .parquet file, or of a folder of files of one such kind.

    text_column   one or several; several are joined by a space, empty ones take none. Default: text, sentence, content, review,
                  reviewText, comment, body, document, message or tweet
    label_column  of class numbers or names; default: label, labels, class, target, category, sentiment, polarity, stars,
                  rating or intent. Of two columns one name is enough. Where a .csv or .tsv has no header, columns are
                  numbers from 1: label_column="1", text_column="2"
    encoding      of .csv, .tsv and .jsonl
    quotes        whether quotes in .csv and .tsv enclose fields (True), or are letters (False). Default: they enclose, and where
                  fields lie between tabs a row that has rows within its quotes is refused
    on_error      "refuse" a source with rows that cannot be used (too few or too many fields, not in the encoding, a NUL,
                  no text, no label, a label that only the test part has), or "skip" them and count them in `problems`
    test_share    how much of each class is held out where no file is of a test part
    cache         folder for the texts as they are read; default `$XDG_CACHE_HOME/svp/texts`, else `~/.cache/svp/texts`
    progress      called with ("reading FILE", per cent, 100)

    Files of a folder are divided by how their name or folder begins: train.csv, test.csv, train/0.jsonl; the first of test,
    validation, valid, val and dev with labels is the test part. One without the column of labels, or whose labels are all below
    0 and no classes, is not used, which `problems` say.
    ids      row numbers through the training part's files in order of their paths' bytes, unusable rows included
    keys     FILE:ROW, where a part has several files; of one the row numbers are enough
    classes  the labels of the training part, sorted (as numbers where all are); or their names in the hub's metadata
    inputs   `Texts`, on disk
    Test rows whose text the training part has too are left out; they, and texts that come twice in the training part, stand
    in `problems`. Rows end as CSV has it: quotes are doubled within quotes, and line breaks may stand there.

    Raises DataError naming file, rows and reason; SettingError for a column that is not there; StorageError where the cache
    has no room. Memory: a block of the files, and about 50 bytes a row; where a part has several files 90 more, for keys. Disk:
    about the files again. Time: one pass, then seconds for millions of rows.
    """
    source = Path(source)
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise SettingError(
            f"encoding (--encoding) is {encoding!r}, which Python does not know; give utf-8, latin-1, cp1252, utf-16 ..."
        ) from None
    texts = (text_column,) if isinstance(text_column, str) else tuple(text_column)
    train, tests = divided(source, (kind_of(source),))
    columns, names = _columns(train[0], texts, label_column, encoding, quotes)
    return _dataset(
        source,
        train,
        tests,
        columns,
        names,
        on_error=on_error,
        test_share=test_share,
        cache=cache,
        progress=progress,
    )


def load_amazon(
    name: str,
    root: str | os.PathLike[str] | None = None,
    on_error: OnError = "refuse",
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Amazon reviews by polarity or stars (Zhang, Zhao and LeCun 2015): train.csv and test.csv with label, title, text.

    root  the folder of the two files, or one above it; default as `svp.data.cache.data_folder` says

    The two characters \\n stand for line breaks in these files. Title and text are joined by a space; where there is no title,
    the text is all. The other arguments, errors and costs are those of `load`.
    """
    folder, classes = AMAZON[name]
    base = data_folder(root)
    places = [base, base / folder, *sorted(base.glob(f"*/{folder}"))]
    source = next((place for place in places if (place / "train.csv").is_file()), None)
    if source is None:
        raise DataError(
            f"{base} has no {folder}/train.csv; unpack its publishers' {folder}.tar.gz there, or name its folder with "
            "root (--data)"
        )
    if not (source / "test.csv").is_file():
        raise DataError(f"{source} has train.csv, but no test.csv; put the publishers' file beside it")
    columns = Columns("1", ("2", "3"), header=False, newline_as_words=True)
    data = _dataset(
        source,
        [source / "train.csv"],
        [[source / "test.csv"]],
        columns,
        {str(i + 1): label for i, label in enumerate(classes)},
        on_error=on_error,
        cache=cache,
        progress=progress,
    )
    present = np.bincount(np.asarray(data.labels, np.int64), minlength=len(classes)) > 0
    if not present.all():
        raise DataError(
            f"{source / 'train.csv'} has no review of {', '.join(np.array(classes)[~present])}; is this folder the publishers' "
            f"{folder}? If it is that of another of their data sets, name that one: {', '.join(AMAZON)}"
        )
    return replace(data, name=name, test=data.test and replace(data.test, name=f"{name} (test)"))


def is_source(path: Path, given: dict[str, Any]) -> bool:
    """Whether a path is a file of texts, or a folder of them; given: the options of `load_dataset` that say more."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES and (path.suffix.lower() != ".parquet" or _holds_texts(path, given))
    tables = known_by(path, SUFFIXES)
    if not tables or "image_column" in given or "image_size" in given:
        return False
    if tables[0].suffix.lower() == ".parquet":
        return _holds_texts(tables[0], given)
    # Lists of images lie beside folders of classes.
    below = [p.name for p in tables[0].parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return "text_column" in given or not below


def _holds_texts(file: Path, given: dict[str, Any]) -> bool:
    """Whether a Parquet file is one of texts; with a column that is called as images are, it is one of images."""
    if "text_column" in given or "image_column" in given:
        return "text_column" in given
    names = [name.strip().lower() for name in names_of(file)]
    return not set(names) & set(IMAGES) and bool(set(names) & set(TEXTS))


# --- columns -------------------------------------------------------------------------------------------------------------


def kind_of(source: Path) -> str:
    """The suffix that the files of a source share."""
    files = visible(source) if source.is_dir() else [source]
    kinds = sorted({file.suffix.lower() for file in files} & set(SUFFIXES))
    if len(kinds) != 1:
        raise DataError(
            f"{source} has files of several kinds ({', '.join(kinds)}); keep those of one kind in a folder of their own"
            if kinds
            else f"{source} has no texts; give {', '.join(SUFFIXES)}"
        )
    return kinds[0]


def _columns(
    file: Path, texts: tuple[str, ...], label: str | None, encoding: str, quotes: bool | None
) -> tuple[Columns, dict[str, str] | None]:
    """Which columns are meant, and the names of the classes by the words of the labels, where the file says so."""
    names = names_of(file, encoding, quotes)
    given = [*texts, *([] if label is None else [label])]
    numbered = bool(given) and all(map(str.isdecimal, given)) and not set(given) <= set(names)
    if numbered and file.suffix.lower() in (".csv", ".tsv"):
        if label is None or not texts:
            raise SettingError(f"{file}: without a header both are needed, as in --label-column 1 --text-column 2")
        if wrong := [name for name in given if not 1 <= int(name) <= len(names)]:
            raise SettingError(f"{file} has no column {wrong[0]}; its first row has {len(names)}, counted from 1")
        return Columns(label, texts, header=False, encoding=encoding, quotes=quotes), None
    label = _column(file, names, label, LABELS, "labels", set(texts))
    texts = tuple(_column(file, names, text, TEXTS, "texts", {label}) for text in texts or (None,))
    if label in texts:
        raise SettingError(f"{file}: column {label!r} is named for labels and for texts; name another")
    return Columns(label, texts, encoding=encoding, quotes=quotes), _named(file, label)


def columns_of_texts(file: Path, texts: tuple[str, ...], encoding: str, quotes: bool | None = None) -> Columns:
    """The columns of texts alone; a file of one column needs no name for it."""
    names = names_of(file, encoding, quotes)
    if not texts and len(names) == 1:
        texts = (names[0],)
    texts = tuple(_column(file, names, text, TEXTS, "texts", set()) for text in texts or (None,))
    return Columns("", texts, encoding=encoding, quotes=quotes)


def _column(file: Path, names: list[str], given: str | None, usual: Sequence[str], what: str, others: set[str]) -> str:
    """The column that is meant; of two columns the one that is left."""
    flag = {"texts": "text_column (--text-column)", "labels": "label_column (--label-column)"}[what]
    listed = ", ".join(names[:20]) or "nothing"
    if given is not None:
        if given not in names:
            raise SettingError(f"{file} has no column {given!r}; it has {listed}")
        return given
    known = {name.strip().lower(): name for name in reversed(names)}
    found = next((known[name] for name in usual if name in known), None)
    left = [name for name in names if name not in others and name.strip().lower() not in (*TEXTS, *LABELS)]
    if found is None and len(names) == 2 and len(left) == 1:
        found = left[0]
    if found is None:
        without = (
            "; without a header, number the columns: --label-column 1 --text-column 2"
            if file.suffix.lower() in (".csv", ".tsv")
            else ""
        )
        raise SettingError(
            f"{file} has no column of {what} called {usual[0]}, {usual[1]} or the like; "
            f"name one of {listed} with {flag}{without}"
        )
    return found


def _named(file: Path, label: str) -> dict[str, str] | None:
    """Names of classes by number, which Parquet files of the Hugging Face hub bring."""
    if file.suffix.lower() != ".parquet":
        return None
    import pyarrow.parquet as pq

    return {str(i): name for i, name in enumerate(names_of_classes(pq.read_schema(file), label))} or None


def _names(file: Path, columns: Columns) -> list[str]:
    return names_of(file, columns.encoding, columns.quotes) if columns.header else [columns.label]


# --- parts ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The usable rows of one part: texts on disk, (n,) class numbers (-1: of no class), and row numbers through its files.

    problems  a line for each file and reason; n_bad: how many rows they count
    folder    of the cache, where labels and ids lie if they are many
    """

    texts: Texts
    labels: Ints
    ids: Ints
    keys: tuple[str, ...] | None
    problems: tuple[str, ...]
    n_bad: int
    folder: Path

    def where(self, chosen: NDArray[np.bool_]) -> "Part":
        if chosen.all():
            return self
        blocks = [slice(start, start + BLOCK) for start in range(0, len(chosen), BLOCK)]

        def kept(values: Ints) -> Ints:
            return text_cache.gathered((values[part][chosen[part]] for part in blocks), self.folder)

        rows = text_cache.gathered((part.start + np.flatnonzero(chosen[part]) for part in blocks), self.folder)
        keys = None if self.keys is None else tuple(self.keys[i] for i in rows.tolist())
        return replace(self, texts=self.texts.part(rows), labels=kept(self.labels), ids=kept(self.ids), keys=keys)

    def dataset(self, name: str, classes: dict[str, str], cache: str | os.PathLike[str] | None) -> Dataset:
        texts = cast(NDArray[Any], self.texts)  # to whoever reads it, it is such an array
        of = None if cache is None else Path(cache)
        return Dataset(name, texts, self.labels, tuple(classes.values()), self.ids, self.keys, cache=of)


def _dataset(
    source: Path,
    files: list[Path],
    tests: list[list[Path]],
    columns: Columns,
    names: dict[str, str] | None,
    *,
    on_error: OnError,
    test_share: float = TEST_SHARE,
    cache: str | os.PathLike[str] | None,
    progress: Progress | None,
) -> Dataset:
    """The dataset of the files to train on, and of the first of the parts to test on that has labels."""

    def read(files: list[Path]) -> list[Read]:
        return text_cache.read(source, files, columns, cache=cache, progress=progress or silent)

    found = read(files)
    classes = _classes([word for one in found for word in one.words], names)
    train = _part(source, files, found, classes)
    test, unused = _labelled(source, tests, columns, classes, read)
    if test is not None and test_share != TEST_SHARE:
        raise SettingError(f"{source}: test_share (--test-share) means nothing here; it has files of a test part")
    bad = [*train.problems, *(() if test is None else test.problems)]
    n_bad = train.n_bad + (0 if test is None else test.n_bad)
    if bad and on_error == "refuse":
        raise DataError(
            f"{source}: {n_bad:,} {'row' if n_bad == 1 else 'rows'} cannot be used: {some(bad)}; repair or remove them, or "
            "leave them out with on_error='skip' (--on-error skip)"
        )
    train = train.where(train.labels >= 0)
    if not len(train.ids):
        raise DataError(f"{source}: no row can be used: {some(bad) or 'there is none'}")
    if test is not None and not (test.labels >= 0).any():
        raise DataError(
            f"{source}: no row of its test part can be used: {some(list(test.problems)) or 'there is none'}; repair its files, "
            "or move them elsewhere"
        )
    if test is None:
        if unused and test_share:
            unused.append(f"{100 * test_share:g} % of each class are held out of the training part in its place")
        held_out = np.zeros(len(train.ids), bool)
        held_out[hold_out(train.labels, train.ids, test_share)] = True
        train, test = train.where(~held_out), train.where(held_out)
    test, notes = _without_repeats(train, test.where(test.labels >= 0))
    notes = [*(["; ".join(unused)] if unused else []), *notes]
    if bad or notes:
        left_out = [f"{n_bad:,} {'row' if n_bad == 1 else 'rows'} left out: {some(bad)}"] if bad else []
        warnings.warn(f"{source}: {'; '.join([*left_out, *notes])}", SvpWarning, stacklevel=3)
    name = printable(source.resolve().stem if source.is_file() else source.resolve().name)
    tested = test.dataset(f"{name} (test)", classes, cache) if len(test.ids) else None
    return replace(train.dataset(name, classes, cache), test=tested, problems=(*bad, *notes))


def _classes(words: list[str], names: dict[str, str] | None) -> dict[str, str]:
    """The name of the class that each word of a label stands for, in order of the class numbers."""
    if names is not None:
        return names
    try:
        return {word: word for word in sorted(set(words), key=lambda word: (int(word), word))}
    except ValueError:
        return {word: word for word in sorted(set(words))}


def _labelled(
    source: Path,
    parts: list[list[Path]],
    columns: Columns,
    classes: dict[str, str],
    read: Callable[[list[Path]], list[Read]],
) -> tuple[Part | None, list[str]]:
    """The first part that has labels, if any; and in words why those before it are not used."""
    unused: list[str] = []
    for files in parts:
        named = columns.label in _names(files[0], columns)
        found = read(files) if named else []
        if named and not _are_unknown([word for one in found for word in one.words], classes):
            return _part(source, files, found, classes), unused
        lack = "no known label" if named else f"no column {columns.label}"
        unused.append(f"{printable(_name(source, files[0]))} has {lack} and is not used")
    return None, unused


def _are_unknown(words: list[str], classes: dict[str, str]) -> bool:
    """Whether all labels are numbers below 0 that are no classes: as the hub has them of tests whose labels nobody may know."""
    return bool(words) and all(word.startswith("-") and word[1:].isdecimal() and word not in classes for word in words)


def _part(source: Path, files: list[Path], found: list[Read], classes: dict[str, str]) -> Part:
    """The rows of some files, one after the other; labels that are no class count as problems."""
    number = {word: i for i, word in enumerate(classes)}
    problems: list[str] = []
    n_bad = 0
    for file, one in zip(files, found, strict=True):
        bad = Problems(dict(one.problems.counts), dict(one.problems.first))
        for code, word in enumerate(one.words):
            if word not in number:
                bad.add(f"with the label {word!r}, which is none of {some(list(classes))}", _rows_with(one, code))
        problems += bad.lines(printable(_name(source, file)))
        n_bad += sum(bad.counts.values())

    def labels() -> Iterator[Ints]:
        for one in found:
            class_of = np.array([*(number.get(word, -1) for word in one.words), -1], np.int64)
            yield from (class_of[codes] for codes in Texts([one.arrow]).numbers("label"))

    folder = found[0].arrow.parent
    return Part(
        Texts([one.arrow for one in found]),
        text_cache.gathered(labels(), folder),
        text_cache.row_ids(found),
        row_keys(source, files, found) if len(files) > 1 else None,
        tuple(problems),
        n_bad,
        folder,
    )


def _rows_with(one: Read, code: int) -> Ints:
    """The rows of a file with the label of this number."""
    texts = Texts([one.arrow])
    pairs = zip(texts.numbers("row"), texts.numbers("label"), strict=True)
    return np.concatenate([np.zeros(0, np.int64), *(rows[codes == code] for rows, codes in pairs)])


def row_keys(source: Path, files: list[Path], found: list[Read]) -> tuple[str, ...]:
    """FILE:ROW of the rows that can be used."""
    return tuple(
        f"{_name(source, file)}:{row}"
        for file, one in zip(files, found, strict=True)
        for rows in Texts([one.arrow]).numbers("row")
        for row in rows.tolist()
    )


def _name(source: Path, file: Path) -> str:
    return file.relative_to(source).as_posix() if file != source else file.name


def _beginnings(hashes: NDArray[np.uint64], bits: int) -> list[Ints]:
    """Where the hashes stand that begin with each number of so many bits."""
    begins_with = (hashes >> np.uint64(64 - bits)).astype(np.int64)
    order = np.argsort(begins_with, kind="stable")
    return np.split(order, np.searchsorted(begins_with[order], np.arange(1, 1 << bits)))


def _without_repeats(train: Part, test: Part) -> tuple[Part, list[str]]:
    """Test rows whose text stands in the training part are left out; what was found, in words. Texts are told by their hashes.

    Time: one pass. Memory: the hashes that begin alike, about _TOGETHER of them, and those of the test part. Disk, for a moment:
    8 bytes a training row.
    """
    notes = []
    tested = np.concatenate([np.zeros(0, np.uint64), *test.texts.hashes()])
    seen, repeats = np.zeros(len(tested), bool), 0
    bits = min(_MOST_BITS, max(1, len(train.ids) // _TOGETHER).bit_length())
    with ExitStack() as left:
        beginnings = [left.enter_context(SpooledTemporaryFile(_TOGETHER)) for _ in range(1 << bits)]
        for hashes in train.texts.hashes():
            for beginning, file in zip(_beginnings(hashes, bits), beginnings, strict=True):
                file.write(hashes[beginning].tobytes())
        for file, here in zip(beginnings, _beginnings(tested, bits), strict=True):
            file.seek(0)
            known = np.sort(np.frombuffer(file.read(), np.uint64))
            repeats += int((known[1:] == known[:-1]).sum())
            if len(known) and len(here):
                place = np.minimum(np.searchsorted(known, tested[here]), len(known) - 1)
                seen[here] = known[place] == tested[here]
    if n_seen := int(seen.sum()):
        notes.append(
            f"{n_seen:,} of {len(seen):,} test rows have a text of the training part, and are left out of the test"
        )
    if repeats:
        notes.append(f"{repeats:,} of {len(train.ids):,} training rows repeat the text of another, and are kept")
    if len(seen) and seen.all():
        raise DataError(f"{notes[0]}: nothing is left to test on; bring other test rows")
    return test.where(~seen), notes
