"""What is compared: ray_xml and its peers, each with its packages, settings and program."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

PROGRAMS = Path(__file__).parent / "peer_programs"
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class System:
    """A trainer under one setting.

    Attributes:
        name: as ``--systems`` takes it.
        settings: what was set, in words.
        program: its file in peer_programs/, with its own options.
        environment: the virtual environment's name; None is the python that runs the benchmark.
        requirements: pinned packages of the environment.
        bare: pinned packages that are installed without what they depend on.
        shown: packages whose versions the results keep.
        only_unscaled: says nothing new where documents have unit length already.
    """

    name: str
    settings: str
    program: tuple[str, ...]
    environment: str | None
    requirements: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    only_unscaled: bool = False

    def command(self, python: str | Path) -> list[str]:
        """How to call the program with ``python``."""
        return [str(python), str(PROGRAMS / self.program[0]), *self.program[1:]]


RAY_XML = System(
    name="ray_xml",
    settings="its config for the data set",
    program=("ray_xml_peer.py",),
    environment=None,
    shown=("ray-xml", "ray", "torch", "faiss-cpu", "faiss-gpu", "numpy", "scipy"),
)

_OMIKUJI = ("omikuji==0.5.2", "numpy==2.2.6")

_PECOS = System(
    name="pecos",
    settings="XR-Linear, defaults (PIFA, hierarchical k-means), features as they are",
    program=("pecos_peer.py",),
    environment="pecos",
    # libpecos also asks for torch and transformers, which XR-Linear does not import.
    requirements=("numpy==1.26.4", "scipy==1.13.1", "scikit-learn==1.5.2"),
    bare=("libpecos==1.2.8",),
    shown=("libpecos", "numpy", "scipy"),
)

SYSTEMS = (
    RAY_XML,
    System(
        name="omikuji",
        settings="defaults (Parabel-like)",
        program=("omikuji_peer.py",),
        environment="omikuji",
        requirements=_OMIKUJI,
        shown=("omikuji", "numpy"),
    ),
    System(
        name="omikuji-bonsai",
        settings="Bonsai-like (unbalanced, cluster.k=100, max_depth=3)",
        program=("omikuji_peer.py", "--bonsai"),
        environment="omikuji",
        requirements=_OMIKUJI,
        shown=("omikuji", "numpy"),
    ),
    _PECOS,
    # The other peers scale documents themselves; PECOS leaves that to its text vectoriser.
    replace(
        _PECOS,
        name="pecos-unit",
        settings="XR-Linear, defaults, documents scaled to unit length first",
        program=("pecos_peer.py", "--unit"),
        only_unscaled=True,
    ),
    System(
        name="napkinxc",
        settings="PLT, defaults",
        program=("napkinxc_peer.py",),
        environment="napkinxc",
        requirements=("napkinxc==0.7.2", "numpy==2.2.6", "scipy==1.15.3"),
        shown=("napkinxc", "numpy", "scipy"),
    ),
)


def training_command(
    config: Path, overrides: list[str], data: Path, run: Path, threads: int, labels: int
) -> list[str]:
    """``ray-xml train`` on this machine with ``threads`` threads in all; overrides come last."""
    workers = min(2, threads, labels)
    return [
        *(sys.executable, "-m", "ray_xml.cli", "train", str(config)),
        *(f"data={data}", f"run={run}", "resources.address=local"),
        *(f"resources.workers={workers}", f"resources.label_shards={workers}"),
        f"resources.cpus_per_worker={threads // workers}",
        *overrides,
    ]


def config_for(name: str) -> Path:
    """The config of a data set by its name: its own, else the default."""
    configs = REPOSITORY / "configs"
    own = configs / f"{name.lower()}.yaml"
    return own if own.is_file() else configs / "default.yaml"
