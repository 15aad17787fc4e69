"""Which model predicts, by its place and checksum: enough for every process to load its share of
the same one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ray_xml import checkpoint
from ray_xml.disk import sha256_of
from ray_xml.errors import CheckpointError
from ray_xml.export import ARRAYS, export_config, is_export, load_documents, load_range
from ray_xml.export_manifest import read_export_manifest
from ray_xml.lexical_file import load_lexical
from ray_xml.model import (
    DocumentModel,
    RangeModel,
    documents_of_checkpoint,
    labels_known,
    probability_of,
    range_of_checkpoint,
)
from ray_xml.model_words import vectorizer_of
from ray_xml.partition import even
from ray_xml.probability import Probability
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_url import local_run
from ray_xml.text import Vectorizer


@dataclass(frozen=True)
class ModelPlace:
    """A trained model, not loaded.

    Attributes:
        source: path or URL of a run folder or an exported model.
        epoch: of its checkpoint; None for an exported model.
        checksum: of its manifest, which has those of everything else, or of an exported model's
            files.
    """

    source: str
    epoch: int | None
    checksum: str

    @staticmethod
    def find(source: str) -> ModelPlace:
        """The best model of a run, or an exported one.

        Raises:
            CheckpointError: no run, no checkpoint that can predict, or a damaged one.
            StorageError: the URL holds neither, or cannot be read.
        """
        path = local_run(source)
        if is_export(path):
            return ModelPlace(source, None, _export_checksum(path))
        manifest = checkpoint.read_manifest(RunFolder(path).model())
        return ModelPlace(source, int(manifest["epoch"]), str(manifest["seal"]))

    def documents(self) -> DocumentModel:
        """The documents' side.

        Raises:
            CheckpointError: this machine has another model there, or none.
        """
        path = self._checked()
        if self.epoch is None:
            return load_documents(path)
        run = RunFolder(path)
        folder = self._folder(run)
        documents = documents_of_checkpoint(folder, run.config(), run.neighbors_file)
        return replace(documents, probability=probability_of(run, folder))

    def labels(self, number: int, of: int) -> RangeModel:
        """The part ``number`` of ``of`` about equal ones of the labels; errors as above."""
        path = self._checked()
        if self.epoch is None:
            return load_range(path, number, of)
        run = RunFolder(path)
        config = run.config()
        known: np.ndarray = labels_known(load_lexical(run.neighbors_file, config.neighbors))
        places = even(len(known), of)[number]
        return range_of_checkpoint(self._folder(run), config, known, places)

    def size(self) -> int:
        """Bytes of its files; errors as above."""
        path = self._checked()
        folder = path if self.epoch is None else self._folder(RunFolder(path))
        return sum(file.stat().st_size for file in folder.iterdir())

    def probability(self) -> Probability:
        """What its scores are worth; errors as above."""
        path = self._checked()
        if self.epoch is None:
            return read_export_manifest(path).probability
        run = RunFolder(path)
        return probability_of(run, self._folder(run))

    def vectorizer(self, num_features: int) -> Vectorizer:
        """What makes its features of texts.

        Raises:
            DataSetError: see ``vectorizer_of``.
        """
        return vectorizer_of(self._checked(), self.config().data, num_features)

    def config(self) -> RunConfig:
        """The run's config; errors as above."""
        path = self._checked()
        return export_config(path) if self.epoch is None else RunFolder(path).config()

    def _folder(self, run: RunFolder) -> Path:
        assert self.epoch is not None
        return checkpoint.folder_of(run.checkpoints, self.epoch)

    def _checked(self) -> Path:
        path = local_run(self.source)
        if self.epoch is None:
            held = _export_checksum(path) if is_export(path) else None
        else:
            held = checkpoint.read_manifest(self._folder(RunFolder(path))).get("seal")
        if held != self.checksum:
            raise CheckpointError(
                f"{path} holds another model here than where the command was given; let every "
                "machine see the same folder, or give a URL"
            )
        return path


def _export_checksum(path: Path) -> str:
    sums = [sha256_of(path / name) for name in ("manifest.json", "config.yaml", ARRAYS)]
    return hashlib.sha256("".join(sums).encode()).hexdigest()
