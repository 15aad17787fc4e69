"""What pages and example files show: links, code, commands and keys, for tests that hold them
against the code."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from ray_xml.cli import _options, _parser
from ray_xml.config import build_config, keys_of, load_config, unknown_key
from ray_xml.run_config import RunConfig
from ray_xml.yaml_text import parse_yaml

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md"] + [f"docs/{p.name}" for p in ROOT.glob("docs/*.md")]
# Their comments show commands, as pages do; a job's entrypoint is one.
CLUSTER_FILES = [
    "cluster.yaml",
    "examples/cluster-on-premise.yaml",
    "examples/kubernetes/raycluster.yaml",
    "examples/kubernetes/rayjob.yaml",
]
SHELL = ("", "sh", "bash")  # languages of blocks with commands; "" are those that are indented
KEYS = keys_of(RunConfig)
_SECTIONS = "|".join(RunConfig.model_fields.keys() - {"data", "run"})
KEY = re.compile(rf"((?:{_SECTIONS})\.\w+)(?:=(.+))?")
_FENCE = re.compile(r" {0,3}```([\w{}-]*)\s*")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_WORD = re.compile(r"""(?:[^\s;&|<>()'"]|'[^']*'|"[^"]*")+|[;&|<>()]+""")
_FOLDERS = "ray_xml|tests|benchmarks|configs|examples|jobs"
_FILE = re.compile(rf"(?:{_FOLDERS})/[\w./*-]*\w|docs/[\w-]+\.\w+")


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, and the line where that begins, from 1."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """A Markdown page, cut into code blocks and the prose around them."""

    name: str
    blocks: tuple[Block, ...]
    prose: str

    @staticmethod
    def read(name: str) -> Page:
        """The page at ``name`` under the root."""
        return Page.of(name, (ROOT / name).read_text(encoding="utf-8"))

    @staticmethod
    def of(name: str, text: str) -> Page:
        """The page with such a text. A line that is indented by four spaces behind an empty line
        begins a block, as in Markdown, but not within a list."""
        blocks: list[Block] = []
        prose: list[str] = []
        lines = text.splitlines()
        at, in_list = 0, False
        while at < len(lines):
            fence = _FENCE.fullmatch(lines[at])
            indented = lines[at].startswith("    ") and not in_list and (at == 0 or not prose[-1])
            if not (fence or indented):
                if lines[at][:1].strip():
                    in_list = re.match(r"[*-] |\d+\. ", lines[at]) is not None
                prose.append(lines[at])
                at += 1
                continue
            start = at + 1 if fence else at
            end = start
            while end < len(lines) and (
                not lines[end].lstrip().startswith("```")
                if fence
                else lines[end].startswith("    ") or not lines[end]
            ):
                end += 1
            inner = "\n".join(line if fence else line[4:] for line in lines[start:end])
            blocks.append(Block(fence[1] if fence else "", inner.rstrip("\n"), start + 1))
            prose.append("")
            at = end + 1 if fence else end
        return Page(name, tuple(blocks), "\n".join(prose))

    def links(self) -> list[str]:
        """Targets of links that lead to no other site."""
        prose = _CODE.sub("", self.prose)
        return [link for link in _LINK.findall(prose) if not re.match(r"\w+:", link)]

    def anchors(self) -> set[str]:
        """What a link may name behind a #: headings as GitHub, and our site, write them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}

    def code(self) -> list[str]:
        """What stands between backticks in the prose."""
        return [" ".join(text.split()) for _, text in _CODE.findall(self.prose)]

    def files(self) -> set[str]:
        """Files of ours that are named anywhere, some with a *."""
        everything = "\n".join([*self.code(), *(block.text for block in self.blocks)])
        found = (match for match in _FILE.finditer(everything))
        return {
            one[0] for one in found if everything[max(one.start() - 1, 0) : one.start()] in "` \n"
        }

    def commands(self) -> list[list[str]]:
        """The words of every command in the blocks."""
        shell = (block.text for block in self.blocks if block.language in SHELL)
        return [words for text in shell for words in commands(text)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of ours in a text of shell lines: of ray-xml, python and make.

    Variables before a command and ``ray job submit … --`` are passed over, output too.
    """
    for line in re.sub(r"\\\n\s*#?\s*", "", text).splitlines():
        # Only lines that begin with one of these are commands; a word of output is no quote.
        if not re.match(r"\s*(#\s*)?([A-Z_]+=\S* )*(ray-xml|python|make|ray job submit) ", line):
            continue
        part: list[str] = []
        for word in [*_WORD.findall(line.strip().lstrip("# ")), ";"]:
            if word[0] in "#;&|<>()":
                if part:
                    yield part
                if word[0] == "#":
                    break
                part = []
            elif part or not re.fullmatch(r"[A-Z_]+=.*", word):
                part += shlex.split(word)


def ours(words: Sequence[str]) -> list[str] | None:
    """The arguments of ray-xml in a command, jobs included; None of other commands.

    ``ray-xml prepare …`` leaves open what follows, so it is none.
    """
    words = [*words]
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :] if "--" in words else []
    if words[:1] == ["ray-xml"] and words[2:3] != ["…"]:
        return words[1:]
    if words[:1] == ["python"] and (job := re.fullmatch(r"\S*?jobs/(\w+)\.py", words[1])):
        assert (ROOT / "jobs" / f"{job[1]}.py").is_file(), words[1]
        return None if words[2:3] == ["…"] else [job[1], *words[2:]]
    return None


def parsed(arguments: list[str]) -> argparse.Namespace:
    """What ray-xml understands of its arguments, with every key=value held against the schema."""
    options = _options(arguments)
    check_keys(getattr(options, "overrides", []))
    return options


def check_keys(overrides: Sequence[str]) -> None:
    """Refuses unknown keys, and values that their keys do not take; a value with … is any."""
    tree: dict[str, Any] = {}
    for one in overrides:
        if one == "…":
            continue
        key, _, value = one.partition("=")
        assert key in KEYS, unknown_key(RunConfig, key)
        if "…" in value:
            continue
        *above, leaf = key.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[leaf] = parse_yaml(value)
    build_config(RunConfig, tree, origin=" ".join(overrides))


def runs(name: str) -> list[RunConfig]:
    """The configs of a page's or cluster file's train commands that are shown whole."""
    options = [parsed(one) for words in shown(name) if (one := ours(words)) and one[0] == "train"]
    there = [one for one in options if one.config.startswith("configs/")]
    return [load_config(RunConfig, ROOT / one.config, one.overrides) for one in there]


def shown(name: str) -> list[list[str]]:
    """The words of every command on a page or in a cluster file."""
    if name.endswith(".md"):
        return Page.read(name).commands()
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith("rayjob.yaml"):
        entrypoint = str(yaml.safe_load(text)["spec"]["entrypoint"])
        return [*commands(text), *commands(entrypoint.replace("/opt/ray_xml/", ""))]
    return [*commands(text)]


def mentioned(code: str) -> None:
    """Refuses a command between backticks whose name, options or keys do not exist.

    It may leave out arguments, and show others as in a usage line.
    """
    words = code.replace("[", "").replace("]", "").split()[1:]
    parser: argparse.ArgumentParser = _parser()
    while (choices := _subcommands(parser)) and words and re.fullmatch(r"[a-z-]+", words[0]):
        assert words[0] in choices, f"ray-xml has no command {words[0]!r}: {code}"
        parser = choices[words.pop(0)]
    known = {name for action in parser._actions for name in action.option_strings}
    for word in words:
        option = word.partition("=")[0]
        assert not option.startswith("--") or option in known, f"no option {option}: {code}"
    check_keys([word for word in words if KEY.fullmatch(word)])


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


class _ParsedError(Exception):
    """A script has understood its arguments."""


def check_script(script: str, arguments: Sequence[str]) -> None:
    """Runs a script up to where its own parser has taken the arguments.

    Raises:
        SystemExit: the parser refuses them.
    """
    path = ROOT / script
    if "ArgumentParser(" not in path.read_text(encoding="utf-8"):
        assert not arguments, f"{script} takes no arguments"
        return
    real = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: Any) -> None:
        real(self, *given)
        raise _ParsedError

    with (
        patch.object(argparse.ArgumentParser, "parse_args", stop),
        patch.object(sys, "argv", [script, *arguments]),
        patch.object(sys, "path", [str(path.parent), *sys.path]),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except _ParsedError:
            return
    raise AssertionError(f"{script} has not looked at its arguments")
