"""What a run will need before it is started: memory by process and node, traffic, and whether it
fits.

    counts = planned_counts(config, like="amazontitles-3m")
    made = plan(config, counts, Nodes(4, cpus=16, memory=64 * 2**30))

Nothing is started and nothing is written. ``benchmarks/plan_check.py`` holds plans against runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ray_xml import plan_memory
from ray_xml.autosize import NodeSize, autosized
from ray_xml.classifier import product_type
from ray_xml.errors import ConfigError
from ray_xml.plan_counts import Counts
from ray_xml.plan_parts import NodeNeed, Process, need_of
from ray_xml.plan_traffic import Traffic, traffic
from ray_xml.run_config import RunConfig

# Ray ends a process of a node whose memory is this full (RAY_memory_usage_threshold).
USABLE = 0.95
_GPU_CONTEXT = 600 * 2**20  # CUDA's own, an assumption: it was not measured


@dataclass(frozen=True)
class Nodes:
    """The machines that a run is planned for, all alike.

    Attributes:
        count: how many.
        cpus: CPUs of one.
        memory: bytes of one.
        gpus: GPUs of one; gpu_memory: bytes of a GPU.
    """

    count: int
    cpus: int
    memory: int
    gpus: int = 0
    gpu_memory: int = 0

    @staticmethod
    def here() -> Nodes:
        """This machine."""
        return Nodes(1, os.cpu_count() or 1, _memory_here())


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        config: resolved.
        counts: the data set, none of it held out.
        nodes: what was planned for.
        processes: of the run, and ``evaluate``.
        needs: by node.
        traffic: of the worker that sends most.
        candidates: labels that a batch trains, about.
        problems: why it does not fit, in words; empty if it does.
        warnings: what is no reason against it.
    """

    config: RunConfig
    counts: Counts
    nodes: Nodes
    processes: list[Process]
    needs: list[NodeNeed]
    traffic: Traffic
    candidates: int
    problems: list[str]
    warnings: list[str]

    @property
    def fits(self) -> bool:
        """Whether the nodes hold it."""
        return not self.problems

    @property
    def peak(self) -> int:
        """Bytes of the fullest node."""
        return max(need.peak for need in self.needs)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        sent = self.traffic
        return {
            "fits": self.fits,
            "problems": self.problems,
            "warnings": self.warnings,
            "data": {
                "documents": self.counts.documents,
                "features": self.counts.features,
                "labels": self.counts.labels,
                "label_pairs": self.counts.pairs,
                "assumed": list(self.counts.assumed),
            },
            "nodes": [need.as_dict() for need in self.needs],
            "processes": [one.as_dict() for one in self.processes],
            "candidates_per_step": self.candidates,
            "traffic": {
                "steps_per_epoch": sent.steps,
                "epochs": self.config.training.total,
                "shortlist_cycles": sent.cycles,
                "refreshes": sent.refreshes,
                "bytes_sent_per_step": round(sent.step),
                "bytes_sent_per_step_first_epoch": round(sent.step_first),
                "bytes_per_refresh": sent.cycle,
            },
        }


def plan(config: RunConfig, counts: Counts, nodes: Nodes | None = None) -> Plan:
    """What ``config`` needs on a data set of ``counts``, on ``nodes`` (None: this machine).

    Raises:
        ConfigError: more processes than labels or columns to share.
    """
    nodes = nodes or Nodes.here()
    config = config.resolved_for(counts.documents, counts.labels, counts.pairs)
    sizes = [NodeSize(nodes.cpus, nodes.gpus)] * nodes.count
    resources = autosized(config.resources, sizes, min(counts.labels, config.encoder.dim))
    config = config.model_copy(update={"resources": resources})
    _check(config, counts)
    product = _product(config)
    fitted = counts.without(config.training.validation)
    likely = plan_memory.expected_candidates(config, fitted)
    workers, shards = (
        [number * min(nodes.count, total) // total for number in range(total)]  # spread evenly
        for total in (resources.workers, resources.label_shards)
    )
    processes = [plan_memory.driver()]
    for node in range(nodes.count):
        busy = workers.count(node) + shards.count(node)
        processes.append(plan_memory.ray_processes(node, nodes.cpus, busy))
    for rank, node in enumerate(workers):
        processes.append(plan_memory.worker(config, fitted, rank, node, likely, product))
    for number, node in enumerate(shards):
        processes.append(plan_memory.shard(config, fitted, number, node))
    processes.append(plan_memory.evaluate(config, fitted))
    needs = [need_of(node, processes) for node in range(nodes.count)]
    sent = max(
        (traffic(config, fitted, product.itemsize, r) for r in range(min(resources.workers, 2))),
        key=lambda one: one.step,
    )
    problems = [
        *_too_few(config, nodes),
        *_too_full(needs, nodes),
        *_gpus_too_full(processes, nodes),
    ]
    warnings = [
        f"node {need.number}: {gib(need.cache)} of files cannot all stay in memory beside "
        f"{gib(need.peak)}: reading them again takes time"
        for need in needs
        if need.peak <= USABLE * nodes.memory < need.peak + need.cache
    ]
    return Plan(
        config,
        counts,
        nodes,
        processes,
        needs,
        sent,
        round(float(likely.sum())),
        problems,
        warnings,
    )


def _check(config: RunConfig, counts: Counts) -> None:
    parts = max(config.resources.workers, config.resources.label_shards)
    if parts > counts.labels or config.resources.workers > config.encoder.dim:
        raise ConfigError(
            f"{config.resources.workers} workers and {config.resources.label_shards} label shards "
            f"are more than {counts.labels:,} labels or encoder.dim={config.encoder.dim} can be "
            "shared by; lower resources.workers and resources.label_shards"
        )


def _product(config: RunConfig) -> torch.dtype:
    """As the workers will have it: as on this machine, but that a GPU need not be here."""
    if config.resources.gpus_per_worker > 0 and not torch.cuda.is_available():
        return torch.float32 if config.classifier.precision == "float32" else torch.bfloat16
    device = "cuda" if config.resources.gpus_per_worker > 0 else "cpu"
    return product_type(config.classifier.precision, torch.device(device))


def _too_few(config: RunConfig, nodes: Nodes) -> list[str]:
    resources, found = config.resources, []
    each = resources.cpus_per_worker or 1.0
    if resources.workers > nodes.count * int(nodes.cpus / each):
        found.append(
            f"{resources.workers} workers of {each:g} CPU, but {nodes.count} nodes with "
            f"{nodes.cpus} CPUs: lower resources.workers or resources.cpus_per_worker"
        )
    wanted = (
        resources.workers * resources.gpus_per_worker
        + resources.label_shards * resources.gpus_per_shard
    )
    if wanted > nodes.count * nodes.gpus:
        found.append(
            f"the run asks for {wanted:g} GPUs, the nodes have {nodes.count * nodes.gpus}: lower "
            "resources.gpus_per_worker or resources.gpus_per_shard"
        )
    return found


def _too_full(needs: list[NodeNeed], nodes: Nodes) -> list[str]:
    return [
        f"node {need.number} needs {gib(need.peak)} ({need.phase}), and may use {USABLE:.0%} of "
        f"{gib(nodes.memory)}"
        for need in needs
        if need.peak > USABLE * nodes.memory
    ]


def _gpus_too_full(processes: list[Process], nodes: Nodes) -> list[str]:
    found = []
    for one in processes:
        most = one.most("gpu")
        if most and nodes.gpu_memory and most + _GPU_CONTEXT > one.gpus * nodes.gpu_memory:
            found.append(
                f"{one.role} needs {gib(most + _GPU_CONTEXT)} of GPU memory, and has {one.gpus:g} "
                f"of a GPU with {gib(nodes.gpu_memory)}"
            )
    return found


def gib(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"


def _memory_here() -> int:
    """Bytes of this machine: by the kernel, or by this process's control group, if less."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
            break
    else:
        raise ConfigError("/proc/meminfo does not say how much memory there is; give --memory")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
