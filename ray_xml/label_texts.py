"""Labels' own texts in a data set in the making: a split of documents that are trained on besides.

A label's text is a document of that label alone. It stands in a split of its own, ``label_texts``,
so that no count of train's labels or documents has it, and none is held out for validation. It
reaches the centroid, the classifier and the sparse channel as any document does, and gives labels
without a training document a place there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ray_xml.label_book import Labels
from ray_xml.row_files import LINE, Columns, check_files, read_rows
from ray_xml.row_values import rows_of
from ray_xml.sparse import Csr
from ray_xml.store_meta import LABEL_TEXTS
from ray_xml.store_write import DataSetWriter
from ray_xml.text import Vectorizer

_NAMES = 8192  # read at a time
_COLUMNS = Columns(text=(LINE,), labels="label")


@dataclass(frozen=True)
class LabelTexts:
    """Where they come from.

    Attributes:
        files: rows of a label, or several, and their text.
        columns: what is what in the files.
        names: whether every label's name is a text of it.
    """

    files: Sequence[str] = ()
    columns: Columns = _COLUMNS
    names: bool = False

    def __bool__(self) -> bool:
        return bool(self.files) or self.names

    def check(self) -> None:
        """Looks at the beginning of each file.

        Raises:
            InputError: one is faulty.
        """
        check_files(self.files, self._columns)

    def meet(self, labels: Labels) -> None:
        """Makes the files' labels known, also those that no document has; errors as above."""
        for _, named in self._rows():
            labels.meet(named)

    def write(
        self, writer: DataSetWriter, vectorizer: Vectorizer, labels: Labels, train: np.ndarray
    ) -> dict[str, int]:
        """Writes the split, without texts that have no known word; errors as above.

        Args:
            labels: settled.
            train: int64 [L], training documents of each label.

        Returns:
            what to tell: texts, labels that have one, those of them without training documents,
            texts that were left out.
        """
        held = np.zeros(len(labels.names), bool)
        with writer.split(LABEL_TEXTS, leave_out_empty=True) as split:
            for texts, rows in self._documents(labels):
                # Of a data set with embeddings, too, a label's text has words alone.
                words = vectorizer.word_rows(texts)
                features = replace(words, num_columns=vectorizer.num_features)
                split.append(features, rows)
                held[rows.take(np.flatnonzero(features.counts)).ids] = True
        meta = writer.splits[LABEL_TEXTS].meta
        assert meta is not None
        return {
            "documents": meta.documents,
            "labels": int(held.sum()),
            "labels_without_train_documents": int((held & (train == 0)).sum()),
            "left_out": meta.left_out_no_features + meta.left_out_no_labels,
        }

    @property
    def _columns(self) -> Columns:
        # What no separator cuts is one name: none holds a line end.
        return replace(self.columns, separator=self.columns.separator or "\n")

    def _rows(self) -> Iterator[tuple[list[str], list[list[str]]]]:
        for block in read_rows(self.files, self._columns):
            rows = rows_of(block, self._columns, allow_empty=True)
            yield rows.texts, rows.labels

    def _documents(self, labels: Labels) -> Iterator[tuple[list[str], Csr]]:
        """(texts, labels [n, L]) block by block."""
        names = labels.names if self.names else []
        for first in range(0, len(names), _NAMES):
            some = list(names[first : first + _NAMES])
            own = np.arange(first, first + len(some), dtype=np.int32)
            yield some, Csr(np.arange(len(some) + 1), own, None, len(names))
        for texts, named in self._rows():
            yield texts, labels.meet(named)
