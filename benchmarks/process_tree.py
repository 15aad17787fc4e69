"""Wall time, CPU time and peak memory of a command and of all processes that it starts.

Linux only: everything is read from /proc. A sampler thread looks at the tree 20 times a second, or
less often where a look is slow, so that it never takes more than 5 % of one core from what it
measures. A peak that comes and goes between two looks is missed.

Memory is the sum over the tree at one moment, and its peak over the looks. The proportional set
size (PSS) shares a page out over the processes that map it, so a sum counts it once; the sum of
resident set sizes (RSS) counts it once for each process, and is given beside it. Reading a PSS
makes the kernel walk the process's pages (milliseconds), so it is read again only when the RSS has
moved, or after some seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_INTERVAL_S = 0.05
_BUDGET = 0.05  # of one core, for sampling
_PSS_AGE_S = 5.0
_PSS_DRIFT = 0.01  # of the RSS
_NAMELESS = "unknown"  # the role of a process that does not tell
_LINGER_S = 10.0  # what Ray's helpers take to notice that their cluster has gone


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        status: exit status; negative for a signal.
        wall_seconds: from its start to its end.
        cpu_seconds: user and system time of all processes of the tree. Both ways to count it miss
            something (the kernel's: processes that nobody waited for; the samples': what came
            after the last look), so it is the larger of two lower bounds.
        peak_pss, peak_rss: bytes; see the module's docstring.
        root_rss: bytes, the peak of the command's own process.
        processes: how many were seen.
        samples: how many looks the peaks come from.
        roles: title → memory of the processes with it, see ``role_of``.
    """

    status: int
    wall_seconds: float
    cpu_seconds: float
    peak_pss: int
    peak_rss: int
    root_rss: int
    processes: int
    samples: int
    roles: dict[str, Role] = field(default_factory=dict)


@dataclass
class Role:
    """The processes of a tree that do the same work, as far as their titles tell.

    Attributes:
        processes: how many were seen.
        largest: bytes, the largest PSS that any of them had.
        peak: bytes, the largest sum of their PSS at one moment.
        at_peak: bytes, the sum of their PSS at the moment when the whole tree's was the largest.
    """

    processes: int = 0
    largest: int = 0
    peak: int = 0
    at_peak: int = 0


def run(command: Sequence[str], *, env: Mapping[str, str], log: Path) -> Usage:
    """Runs ``command`` to its end, with both its outputs in ``log``.

    Whatever is left of the tree afterwards, or when this call is interrupted, is ended: the next
    command is measured on a quiet machine.
    """
    with open(log, "w", encoding="utf-8") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        tree = ProcessTree(process.pid)
        sampler = _Sampler(tree)
        sampler.start()
        try:
            _, raw_status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(raw_status)
        except BaseException:
            sampler.stop()
            tree.end(0.0)
            process.wait()
            raise
        sampler.stop()
        tree.end(_LINGER_S)
    return Usage(
        status=process.returncode,
        wall_seconds=wall,
        cpu_seconds=max(used.ru_utime + used.ru_stime, tree.cpu_seconds()),
        peak_pss=tree.peak_pss,
        peak_rss=tree.peak_rss,
        root_rss=tree.root_rss,
        processes=len(tree.cpu_ticks),
        samples=tree.samples,
        roles=tree.roles(),
    )


@dataclass(frozen=True)
class Stat:
    """A line of /proc/PID/stat, as far as it matters here."""

    pid: int
    parent: int
    started: int  # with the pid, names a process for good: pids are used again
    ticks: int  # user and system time of its own
    dead: bool  # a zombie: its memory has gone

    @staticmethod
    def parse(text: str) -> Stat:
        # The command's name stands in brackets and may itself hold brackets and spaces.
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        return Stat(
            pid=int(head.split(" ", 1)[0]),
            parent=int(fields[1]),
            started=int(fields[19]),
            ticks=int(fields[11]) + int(fields[12]),
            dead=fields[0] in "ZX",
        )


@dataclass(frozen=True)
class _Pss:
    read: float  # when
    resident: int
    proportional: int


@dataclass
class ProcessTree:
    """A process and its descendants, those included whose parent has ended since.

    Attributes:
        root: the process's pid.
        cpu_ticks: (pid, start time) → clock ticks used, as last seen.
    """

    root: int
    peak_pss: int = 0
    peak_rss: int = 0
    root_rss: int = 0
    samples: int = 0
    cpu_ticks: dict[tuple[int, int], int] = field(default_factory=dict)
    _pss: dict[int, _Pss] = field(default_factory=dict)
    _titles: dict[int, str] = field(default_factory=dict)
    _roles: dict[str, Role] = field(default_factory=dict)

    def look(self) -> None:
        """Takes one sample."""
        alive = self.members()
        pss = rss = 0
        by_role: dict[str, int] = {}
        for one in alive:
            self.cpu_ticks[one.pid, one.started] = one.ticks
            resident = resident_bytes(one.pid)
            rss += resident
            if one.pid == self.root:
                self.root_rss = max(self.root_rss, resident)
            own = self._proportional(one.pid, resident)
            pss += own
            role = self._title(one.pid)
            by_role[role] = by_role.get(role, 0) + own
            known = self._roles.setdefault(role, Role())
            known.largest = max(known.largest, own)
        for role, own in by_role.items():
            self._roles[role].peak = max(self._roles[role].peak, own)
        if pss > self.peak_pss:
            for role, known in self._roles.items():
                known.at_peak = by_role.get(role, 0)
        self.peak_pss, self.peak_rss = max(self.peak_pss, pss), max(self.peak_rss, rss)
        self.samples += 1

    def roles(self) -> dict[str, Role]:
        """The memory of the processes seen so far, by their last titles."""
        for known in self._roles.values():
            known.processes = 0
        for title in self._titles.values():
            self._roles[title].processes += 1
        return {role: known for role, known in self._roles.items() if known.processes}

    def _title(self, pid: int) -> str:
        """Ray's workers are renamed when they are given something to do, for good."""
        known = self._titles.get(pid, "")
        if pid == self.root:
            known = "root"
        elif not known.startswith("ray::") or known == "ray::IDLE":
            found = role_of(pid)
            # A process that is just ending has no name any more, but it had one.
            known = known if known and found == _NAMELESS else found
        self._titles[pid] = known
        return known

    def _proportional(self, pid: int, resident: int) -> int:
        known, now = self._pss.get(pid), time.monotonic()
        if (
            known is None
            or now - known.read > _PSS_AGE_S
            or abs(resident - known.resident) > _PSS_DRIFT * known.resident
        ):
            found = proportional_bytes(pid)
            known = _Pss(now, resident, resident if found is None else found)
            self._pss[pid] = known
        return known.proportional

    def members(self) -> list[Stat]:
        """The tree's processes that are alive now."""
        stats = {one.pid: one for one in _all_stats()}
        children: dict[int, list[Stat]] = {}
        for one in stats.values():
            children.setdefault(one.parent, []).append(one)
        known = [one for one in stats.values() if (one.pid, one.started) in self.cpu_ticks]
        if not self.cpu_ticks and self.root in stats:
            known.append(stats[self.root])
        found = {one.pid: one for one in known}
        while known:
            for child in children.get(known.pop().pid, []):
                if child.pid not in found:
                    found[child.pid] = child
                    known.append(child)
        return [one for one in found.values() if not one.dead]

    def cpu_seconds(self) -> float:
        return sum(self.cpu_ticks.values()) / os.sysconf("SC_CLK_TCK")

    def end(self, patience: float) -> None:
        """Waits until no process is left, and kills those that outlive ``patience`` seconds."""
        for one in self._left_after(patience):
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._left_after(_LINGER_S)  # a large process takes a while to give its memory back

    def _left_after(self, seconds: float) -> list[Stat]:
        """The members once there are none, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(_INTERVAL_S)
        return left


def resident_bytes(pid: int) -> int:
    """Resident set size; 0 for a process that has ended."""
    try:
        pages = (_PROC / str(pid) / "statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(pid: int) -> int | None:
    """Proportional set size; None where the kernel does not tell, or the process has ended."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def role_of(pid: int) -> str:
    """What a process calls itself: Ray's own title up to the method (``ray::LabelShard``), else the
    name of its program or, for Python, of its script or module."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    if not words or not words[0]:
        return _NAMELESS
    if words[0].startswith("ray::"):
        return words[0].split(".")[0].split("(")[0].split()[0]
    name = Path(words[0].split()[0]).name
    if name.startswith("python"):
        name = next((Path(word).name for word in words[1:] if word and word[0] != "-"), name)
    return name


def memory_measure() -> str:
    """What peaks are made of here: ``PSS``, or ``RSS`` where the kernel tells nothing better."""
    return "RSS" if proportional_bytes(os.getpid()) is None else "PSS"


def available() -> bool:
    """Whether this system has what the module reads."""
    return (_PROC / "self" / "stat").exists()


def _all_stats() -> list[Stat]:
    stats = []
    for name in os.listdir(_PROC):
        if name.isdigit():
            try:
                stats.append(Stat.parse((_PROC / name / "stat").read_text()))
            except (OSError, ValueError, IndexError):
                continue  # it ended meanwhile
    return stats


class _Sampler(threading.Thread):
    def __init__(self, tree: ProcessTree) -> None:
        super().__init__(daemon=True)
        self._tree, self._stopped = tree, threading.Event()

    def run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            began = time.thread_time()
            self._tree.look()
            took = time.thread_time() - began
            pause = max(_INTERVAL_S, took * (1 / _BUDGET - 1))

    def stop(self) -> None:
        self._stopped.set()
        self.join()
