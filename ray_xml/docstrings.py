"""A real data set that every installation carries: the docstrings of installed packages.

A document is one documented function or method of a package; its text is its qualified name and
docstring; its labels are the full dotted names of the imported functions its body calls, as
``ray_xml.calls`` finds them. Files are parsed, never imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ray_xml.calls import Document, scan
from ray_xml.errors import ConfigError

# What ray_xml's own dependencies install (directly or through Ray and PyTorch). A package that is
# missing is passed over, so a leaner installation gives a smaller data set, not an error.
DEFAULT_PACKAGES = (
    "numpy", "scipy", "sklearn", "joblib", "pandas", "pyarrow", "networkx", "sympy", "mpmath",
    "torch", "ray", "pydantic", "rich", "fsspec", "jinja2", "click", "jsonschema",
    "aiohttp", "requests", "urllib3", "grpc", "opentelemetry", "google", "narwhals", "pygments",
    "cryptography", "setuptools", "virtualenv",
)  # fmt: skip

# Tests document themselves, not a library; bundled copies would repeat other packages.
_SKIPPED_FOLDERS = {
    "__pycache__", "test", "tests", "testing", "generated",
    "_vendor", "vendored", "externals", "third_party", "thirdparty", "thirdparty_files",
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """What ``collect`` found, in sorted file order.

    Attributes:
        documents: the documented functions, those without labels too.
        packages: the packages that were scanned.
        missing: the packages asked for that are not installed.
        files: the number of source files read.
        failed: how many of them could not be read or parsed.
    """

    documents: list[Document]
    packages: tuple[str, ...]
    missing: tuple[str, ...]
    files: int
    failed: int


@dataclass(frozen=True)
class Prepared:
    """What ``prepare_docstrings`` wrote."""

    train: int
    test: int
    labels: int
    features: int
    files: int
    failed: int


def collect(
    packages: Sequence[str] = DEFAULT_PACKAGES,
    *,
    processes: int | None = None,
    site: str | Path | None = None,
) -> Corpus:
    """Scans the sources of installed packages.

    More than one process means fresh interpreters, so a script that calls this needs the usual
    ``if __name__ == "__main__":`` guard. The result does not depend on their number.

    Args:
        packages: top-level package names; missing ones are passed over.
        processes: how many processes parse; None takes one a CPU.
        site: the folder that holds the packages; None looks where Python imports from.

    Raises:
        ConfigError: a name is not a top-level package's, or none of them is installed.
    """
    dotted = [package for package in packages if not package.isidentifier()]
    if dotted:
        # Looking up a dotted name would import its parent; a path would leave the site folder.
        raise ConfigError(f"{dotted[0]!r} is not the name of a top-level package, such as 'numpy'")
    roots = {package: _package_folder(package, site) for package in packages}
    found = {package: root for package, root in roots.items() if root is not None}
    if not found:
        place = "where Python imports from" if site is None else f"in {site}"
        raise ConfigError(f"none of the packages {', '.join(packages)} is installed {place}")
    sources = [source for package, root in found.items() for source in _sources(package, root)]
    processes = min(processes or os.cpu_count() or 1, max(1, len(sources)))
    if processes == 1:
        scanned = list(map(_scan_file, sources))
    else:
        # A forked child would inherit the locks of whatever threads the caller runs.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            scanned = list(pool.map(_scan_file, sources, chunksize=16))
    return Corpus(
        documents=[document for documents in scanned for document in documents or ()],
        packages=tuple(found),
        missing=tuple(package for package in packages if package not in found),
        files=len(sources),
        failed=scanned.count(None),
    )


def prepare_docstrings(
    out: str | Path,
    *,
    packages: Sequence[str] = DEFAULT_PACKAGES,
    min_documents: int = 2,
    test_fraction: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    processes: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Prepared:
    """Writes the docstrings of the installed packages as a data set with a train and a test split.

    Equal docstrings go in once, so that no test document has a copy in train. A label stays if
    enough documents carry it and one of them at least is in train; documents left without labels
    are dropped. Beside the splits stand ``vectorizer.json`` and ``test_documents.jsonl``: the name
    and the docstring's first line of each test row, in row order.

    Args:
        out: the data-set folder to write.
        packages: top-level package names to scan.
        min_documents: labels of fewer documents are dropped.
        test_fraction: the share of documents put into test.
        seed: another seed draws another test split.
        overwrite: replace a data set already at ``out``.
        processes: how many processes parse; None takes one a CPU.
        progress: called with a line of text at each step.

    Raises:
        ConfigError: a setting is out of range, or leaves no documents for a split.
        DataSetError: there is something at ``out`` that may not be replaced.
    """
    # Imported late: each parsing process imports this module, and needs none of these.
    from ray_xml.sparse import Csr
    from ray_xml.store_write import DataSetWriter
    from ray_xml.text import TextSettings
    from ray_xml.text_fit import fit

    if min_documents < 1:
        raise ConfigError(f"min_documents is {min_documents}; it must be 1 or more")
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test_fraction is {test_fraction}; it must lie between 0 and 1")
    say = progress or (lambda line: None)

    def open_writer(num_features: int, num_labels: int) -> DataSetWriter:
        return DataSetWriter(
            out,
            name="docstrings",
            num_features=num_features,
            num_labels=num_labels,
            overwrite=overwrite,
        )

    # Opened for nothing but its check of ``out``, which should not fail after the long scan.
    open_writer(1, 1)
    corpus = collect(packages, processes=processes)
    say(
        f"read {corpus.files:,} files of {len(corpus.packages)} packages ({corpus.failed} could"
        f" not be parsed): {len(corpus.documents):,} documented functions"
    )
    train, test = split(
        corpus.documents, min_documents=min_documents, test_fraction=test_fraction, seed=seed
    )
    vectorizer = fit((document.text for document in train), TextSettings(cut="identifiers"))
    label_names = sorted({label for document in train for label in document.labels})
    label_ids = {label: i for i, label in enumerate(label_names)}
    say(f"{len(label_names):,} labels, {vectorizer.num_features:,} features")
    with open_writer(vectorizer.num_features, len(label_names)) as writer:
        for name, part in (("train", train), ("test", test)):
            features = vectorizer.transform(document.text for document in part)
            rows = [[label_ids[label] for label in document.labels] for document in part]
            # A test document without a known word stays: test_documents.jsonl has a line a row.
            with writer.split(name, leave_out_empty=name == "train") as split_writer:
                split_writer.append(features, Csr.from_lists(rows, len(label_names)))
        writer.write_label_names(label_names)
        vectorizer.write(writer)
        lines = (
            {"name": document.name, "summary": document.docstring.splitlines()[0]}
            for document in test
        )
        writer.write_text_file(
            "test_documents.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines)
        )
    assert writer.meta is not None
    num_train = writer.meta.splits["train"].documents
    say(f"wrote {num_train:,} train and {len(test):,} test documents to {out}")
    return Prepared(
        train=num_train,
        test=len(test),
        labels=len(label_names),
        features=vectorizer.num_features,
        files=corpus.files,
        failed=corpus.failed,
    )


def split(
    documents: Iterable[Document], *, min_documents: int, test_fraction: float, seed: int
) -> tuple[list[Document], list[Document]]:
    """Train and test documents, without copies, rare labels or labels that train lacks.

    Which split a document goes to hangs on its docstring and the seed alone, so another package
    installed moves no document.

    Raises:
        ConfigError: a split is left without documents.
    """
    once: dict[str, Document] = {}
    for document in documents:
        if document.labels:
            once.setdefault(_key(document), document)
    counts = Counter(label for document in once.values() for label in document.labels)
    frequent = {label for label, count in counts.items() if count >= min_documents}
    train: list[Document] = []
    test: list[Document] = []
    for key, document in once.items():
        digest = hashlib.blake2b(
            f"{seed}\n{key}".encode("utf-8", "surrogatepass"), digest_size=8
        ).digest()
        in_test = int.from_bytes(digest, "big") < test_fraction * 2**64
        (test if in_test else train).append(document)
    train = _with_labels(train, frequent)
    # Nothing can be learnt of a label that train never shows.
    test = _with_labels(test, {label for document in train for label in document.labels})
    for name, part in (("train", train), ("test", test)):
        if not part:
            raise ConfigError(
                f"no documents are left for the {name} split; scan more packages, lower"
                " min_documents or move test_fraction nearer to a half"
            )
    return train, test


def _key(document: Document) -> str:
    """What makes two docstrings the same: their words, not their spacing or case."""
    return " ".join(document.docstring.split()).casefold()


def _with_labels(documents: list[Document], labels: set[str]) -> list[Document]:
    """The documents with only the given labels; those left without any are dropped."""
    kept = ((d, tuple(label for label in d.labels if label in labels)) for d in documents)
    return [Document(d.name, d.docstring, left) for d, left in kept if left]


def _package_folder(package: str, site: str | Path | None) -> Path | None:
    """The package's folder, or None if it is not installed."""
    if site is not None:
        folder = Path(site, package)
        return folder if folder.is_dir() else None
    # For a top-level name this looks the package up without importing it.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _sources(package: str, root: Path) -> Iterator[tuple[Path, str, str]]:
    """(file, module, package that relative imports start from) of each source, in name order."""
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        *folders, file = path.relative_to(root).parts
        is_test = file == "conftest.py" or file.startswith("test_") or file.endswith("_test.py")
        if is_test or not _SKIPPED_FOLDERS.isdisjoint(folders):
            continue
        parent = ".".join([package, *folders])
        yield path, parent if file == "__init__.py" else f"{parent}.{path.stem}", parent


def _scan_file(source: tuple[Path, str, str]) -> list[Document] | None:
    """The documents of one file, or None if it does not parse."""
    path, module, package = source
    try:
        return scan(path.read_bytes(), module, package)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
