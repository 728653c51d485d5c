"""Encoders of texts from other libraries: texts to embeddings, by a model in a folder of this machine. Nothing is fetched."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError, SettingError, one_line, require

Encode = Callable[[list[str]], Any]  # texts -> (n, d)


@dataclass(frozen=True)
class Row:
    """One library: its module, the extra that brings it, and what makes an encoder of (module, folder, options)."""

    module: str
    extra: str
    load: Callable[[Any, Path, dict[str, Any]], Encode]


def _model2vec(module: Any, folder: Path, options: dict[str, Any]) -> Encode:
    model = module.StaticModel.from_pretrained(folder, **options)
    return lambda texts: model.encode(texts, use_multiprocessing=False)


def _sentence_transformers(module: Any, folder: Path, options: dict[str, Any]) -> Encode:
    model = module.SentenceTransformer(str(folder), local_files_only=True, **options)
    return lambda texts: model.encode(texts, show_progress_bar=False, convert_to_numpy=True)


ENCODERS = {
    "model2vec": Row("model2vec", "model2vec", _model2vec),
    "sentence-transformers": Row("sentence_transformers", "sentence-transformers", _sentence_transformers),
}


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
    def load(cls, name: str, options: dict[str, Any]) -> "TextEncoder":
        """The model that `names_encoder` found in `name`; options are arguments of the library's loader.

        Raises MissingExtra, DataError for a folder that holds no model, SettingError for what the library refuses.
        """
        library, _, place = name.partition(":")
        row, folder = ENCODERS[library], Path(place).expanduser()
        # The libraries take what is no folder, or holds no model, for a name, and would ask a hub for it.
        if not any(folder.rglob("*.safetensors")) or not any(folder.rglob("*.json")):
            raise DataError(
                f"{folder} holds no model of {library}; name the folder that its save_pretrained wrote (.safetensors and .json "
                "files): nothing is fetched"
            )
        module = require(row.module, row.extra)
        try:
            return cls(name, f"sha256:{_digest(folder)}", options, row.load(module, folder, options))
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
