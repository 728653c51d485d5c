"""Encoders of texts from other libraries: texts to embeddings, by a model in a folder of this machine. Nothing is fetched."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError, SettingError, one_line, require

Encode = Callable[[list[str]], Any]  # texts -> (n, d)


@dataclass(frozen=True)
class Row:
    """One library.

    module, extra  what is imported, and the extra that brings it
    load           makes an encoder of (module, folder, options, device)
    on_device      whether the device makes a difference to it
    """

    module: str
    extra: str
    load: Callable[[Any, Path, dict[str, Any], str], Encode]
    on_device: bool


def _model2vec(module: Any, folder: Path, options: dict[str, Any], device: str) -> Encode:
    model = module.StaticModel.from_pretrained(folder, **options)
    return lambda texts: model.encode(texts, use_multiprocessing=False)


def _sentence_transformers(module: Any, folder: Path, options: dict[str, Any], device: str) -> Encode:
    model = module.SentenceTransformer(str(folder), local_files_only=True, device=device, **options)
    return lambda texts: model.encode(texts, show_progress_bar=False, convert_to_numpy=True)


ENCODERS = {
    "model2vec": Row("model2vec", "model2vec", _model2vec, on_device=False),
    "sentence-transformers": Row(
        "sentence_transformers", "sentence-transformers", _sentence_transformers, on_device=True
    ),
}
# Entries of .json files by which a library imports what their text names, and what may stand there. Releases of
# sentence-transformers before 6 import a module that modules.json names from the folder itself, without trust_remote_code too.
_IMPORTED = frozenset({"type", "types", "auto_map", "activation_function", "tokenizer_class", "module_class"})
_HARMLESS = ("sentence_transformers.", "torch.nn.")


@dataclass(frozen=True)
class TextEncoder:
    """A model of one of these libraries.

    name     "model2vec:FOLDER"
    weights  "sha256:..." of all files in its folder
    """

    name: str
    weights: str
    options: dict[str, Any]
    _encode: Encode

    @classmethod
    def load(cls, name: str, options: dict[str, Any], device: str = "cpu") -> "TextEncoder":
        """The model that `names_encoder` found in `name`; options are arguments of the library's loader.

        Raises MissingExtra, DataError for a folder that holds no model, or code of its own, SettingError for what the library
        refuses.
        """
        library, _, place = name.partition(":")
        row, folder = ENCODERS[library], Path(place).expanduser()
        # The libraries take what is no folder, or holds no model, for a name, and would ask a hub for it.
        if not any(folder.rglob("*.safetensors")) or not any(folder.rglob("*.json")):
            raise DataError(
                f"{folder} holds no model of {library}; name the folder that its save_pretrained wrote (.safetensors and .json "
                "files): nothing is fetched"
            )
        _refuse_code(folder, options)
        module = require(row.module, row.extra)
        try:
            return cls(name, f"sha256:{_digest(folder)}", options, row.load(module, folder, options, device))
        except Exception as error:  # whatever another library may raise
            raise SettingError(f"{name} cannot be loaded with {options or 'no options'}: {one_line(error)}") from error

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, d) embeddings. SettingError for whatever the library raises."""
        try:
            embeddings = np.asarray(self._encode(texts), np.float32)
        except Exception as error:
            raise SettingError(f"{self.name} cannot encode these texts: {one_line(error)}") from error
        if embeddings.ndim != 2 or len(embeddings) != len(texts):
            raise SettingError(f"{self.name} gives shape {embeddings.shape} for {len(texts)} texts; (n, d) is needed")
        return embeddings


def _refuse_code(folder: Path, options: dict[str, Any]) -> None:
    """Error for a folder whose model would run code that is not the library's, or for options that let it."""
    if "trust_remote_code" in json.dumps(options, default=str):
        raise SettingError("features.options: trust_remote_code would run code of the model's makers; leave it out")
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"cannot read {path}: {one_line(error)}") from None
        for key, text in _texts(content):
            if key in _IMPORTED and "." in text and not text.startswith(_HARMLESS):
                raise DataError(
                    f"{path} names code of its own ({key}: {text}), which would be run; take a model without, or embed elsewhere "
                    "and name the file of embeddings"
                )


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in what a .json file holds, each with the key that it stands under, at any depth where that is `_IMPORTED`."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _texts(value, key if key in _IMPORTED else name)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, key)
    elif isinstance(content, str):
        yield key, content


def uses_device(source: str) -> bool:
    """Of what `names_encoder`: does the device make a difference to it?"""
    return ENCODERS[source.partition(":")[0]].on_device


def names_encoder(source: str | None) -> bool:
    """Is it LIBRARY:FOLDER, with a library of `ENCODERS`?"""
    return source is not None and ":" in source and source.partition(":")[0] in ENCODERS


def _digest(folder: Path) -> str:
    """SHA-256 of all files by their names in the folder: the same wherever that lies."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
