"""What label ranges hold at a point of a cycle, as the files that it can be read from again.

A cycle brings every range through three states: it has the documents' embeddings; proxies have
been fitted to them; the classifier's rows have joined. Whoever asks a range says which state it
counts on. A range that is not there yet, such as one whose process was killed and started anew,
reads what it lacks; one that is further, or finds files of another cycle, refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ray_xml.errors import StaleError
from ray_xml.matrix_file import MatrixFile


@dataclass(frozen=True)
class RangeState:
    """What a range holds.

    Attributes:
        cycle: the number of the cycle, its first epoch.
        embeddings: [N, D] of the documents that train.
        affine: where the map lies that makes proxies of centroids (see ``proxies``), once fitted.
        rows: [L, D + 1], the classifier's rows with their biases behind, once they joined.
    """

    cycle: int
    embeddings: MatrixFile
    affine: Path | None = None
    rows: MatrixFile | None = None

    def extends(self, other: RangeState | None) -> bool:
        """Whether what is held in ``other`` stays in this state."""
        return (
            other is not None
            and (self.cycle, self.embeddings) == (other.cycle, other.embeddings)
            and other.affine in (None, self.affine)
            and other.rows in (None, self.rows)
        )


def save_affine(path: Path, affine: Tensor, cycle: int) -> None:
    """Writes the map, float64 [D, D + 1], whole or not at all, in the place of earlier cycles'."""
    draft = path.with_name(f".{path.name}")
    save_file({"affine": affine.contiguous()}, draft, metadata={"cycle": str(cycle)})
    for old in path.parent.glob("affine-*"):
        old.unlink()
    draft.replace(path)


def load_affine(path: Path, cycle: int) -> Tensor:
    """The map of ``cycle``, float64 [D, D + 1].

    Raises:
        StaleError: it is another cycle's, or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = str((file.metadata() or {}).get("cycle"))
            affine: Tensor = file.get_tensor("affine")
    except (OSError, SafetensorError) as error:
        raise StaleError(f"{path}: the map of cycle {cycle} cannot be read ({error})") from error
    if found != str(cycle) or affine.dtype != torch.float64:
        raise StaleError(f"{path}: of cycle {found}, but cycle {cycle} is going on")
    return affine
