"""The manifest of an exported model, read with suspicion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ray_xml.added_labels import AddedLabels, from_list
from ray_xml.blend import Blend
from ray_xml.errors import CheckpointError
from ray_xml.json_text import count_of, parse_json, shown
from ray_xml.probability import UNFITTED, Probability
from ray_xml.quantise import Dtype

FORMAT_VERSION = 1
KIND = "ray_xml exported model"
_MOST = 2**31 - 1  # of any count


@dataclass(frozen=True)
class ExportManifest:
    """What of ``manifest.json`` a model needs.

    Attributes:
        dtype: of the large arrays.
        epoch: of the checkpoint.
        num_features, num_labels: the widths.
        blend, probability: the score, and what it is worth.
        exact: sources that training searched exactly.
        added: labels that it got since.
        train_documents: of the data set's train split; None where it was not there.
        label_texts: documents behind those that are texts of labels.
    """

    dtype: Dtype
    epoch: int
    num_features: int
    num_labels: int
    blend: Blend
    exact: tuple[str, ...]
    probability: Probability
    added: tuple[AddedLabels, ...]
    train_documents: int | None
    label_texts: int


def read_export_manifest(path: Path) -> ExportManifest:
    """That of the model exported to the folder ``path``.

    Raises:
        CheckpointError: damaged, or of another format version.
    """
    file = path / "manifest.json"
    try:
        tree = parse_json(file.read_bytes())
        kind, version = tree["kind"], tree["format_version"]
        if kind == KIND and version == FORMAT_VERSION:
            return ExportManifest(
                dtype="fp16" if tree.get("dtype") == "fp16" else "int8",
                epoch=count_of(tree["epoch"]),
                num_features=count_of(tree["num_features"], _MOST),
                num_labels=count_of(tree["num_labels"], _MOST),
                blend=Blend.from_dict(tree["blend"]),
                exact=tuple(str(source) for source in tree.get("exact", ())),
                probability=(
                    Probability.from_dict(tree["probability"])
                    if "probability" in tree  # those of older versions have none
                    else UNFITTED
                ),
                added=from_list(tree.get("added", ())),
                train_documents=(
                    None
                    if tree.get("train_documents") is None
                    else count_of(tree["train_documents"], _MOST)
                ),
                label_texts=count_of(tree.get("label_texts", 0), _MOST),
            )
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{file}: damaged ({error!r}); export again") from error
    raise CheckpointError(
        f"{file}: {_plain(kind)} of format version {_plain(version)}, this ray_xml reads "
        f"{FORMAT_VERSION}; use the version of ray_xml that wrote it, or export again"
    )


def _plain(value: object) -> str:
    return value[:80] if isinstance(value, str) else shown(value)
