"""Structure-aware mutations: valid artefacts with something hostile put in.

Blind changes of bytes hardly ever get past a checksum, a length or a JSON parser. These keep the
outer form (a table stays JSON, a safetensors header keeps its right length, a compressed file can
be unpacked) and spoil what is inside.
"""

from __future__ import annotations

import gzip
import json
import lzma
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

from ray_xml.yaml_text import parse_yaml

INTS = (-1, 0, 1, 2, 3, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 10**12)
LARGE = (2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -(2**31), -(2**63))
TEXTS = ("", "x", "..", "../../x", "/x", "a/b", "x\0", "é", "²", "nan", "1", "auto", "\ud800", "%s")
VALUES: tuple[Any, ...] = (
    *INTS, *LARGE, *TEXTS, None, True, False, 0.5, float("nan"), float("inf"), 1e308, -1e308, 1e-308
)  # fmt: skip

Mutation = Callable[[bytes, Random], bytes]


def _hostile(random: Random) -> Any:
    kind = random.randrange(12)
    if kind == 0:
        return [random.choice(VALUES) for _ in range(random.randrange(4))]
    if kind == 1:
        return {str(random.choice(VALUES)): random.choice(VALUES)}
    if kind == 2:
        deep: Any = random.choice(VALUES)
        for _ in range(random.choice((3, 50, 400))):
            deep = [deep] if random.random() < 0.5 else {"a": deep}
        return deep
    return random.choice(VALUES)


def tree(node: Any, random: Random) -> Any:
    """``node`` with one thing in it changed, however deep."""
    if isinstance(node, dict) and node and random.random() < 0.9:
        key, changed = random.choice(list(node)), dict(node)
        kind = random.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            changed[str(random.choice(TEXTS))] = changed.pop(key)
        elif kind < 0.25:
            changed[str(random.choice(TEXTS))] = _hostile(random)
        else:
            changed[key] = tree(node[key], random)
        return changed
    if isinstance(node, list) and node and random.random() < 0.8:
        place, longer = random.randrange(len(node)), list(node)
        kind = random.random()
        if kind < 0.15:
            del longer[place]
        elif kind < 0.3:
            longer.append(random.choice(node))
        else:
            longer[place] = tree(node[place], random)
        return longer
    if isinstance(node, int) and random.random() < 0.3:
        return node + random.choice((-1, 1))
    return _hostile(random)


def json_text(data: bytes, random: Random) -> bytes:
    """JSON, or JSON lines."""
    lines = data.split(b"\n")
    if len(lines) > 2 and lines[0][:1] == b"{" and lines[0][-1:] == b"}":
        place = random.randrange(len(lines))
        lines[place] = _one_json(lines[place], random)
        return b"\n".join(lines)
    return _one_json(data, random)


def _one_json(data: bytes, random: Random) -> bytes:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return noise(data, random)
    for _ in range(random.randrange(1, 4)):
        found = tree(found, random)
    return json.dumps(found).encode()


def yaml_text(data: bytes, random: Random) -> bytes:
    """A YAML mapping; what follows a NUL are overrides, left alone or mixed with snippets."""
    text, *overrides = data.split(b"\0")
    kind = random.random()
    if kind < 0.3:
        snippet = random.choice(YAML_SNIPPETS)
        if random.random() < 0.5:
            return b"\0".join([text + b"\n" + snippet, *overrides])
        return b"\0".join([text, *overrides, b"training.seed=" + snippet])
    try:
        found = parse_yaml(text)
        for _ in range(random.randrange(1, 4)):
            found = tree(found, random)
        changed = yaml.safe_dump(found, default_flow_style=random.random() < 0.3)
    except (yaml.YAMLError, ValueError, RecursionError):
        return noise(data, random)
    return b"\0".join([changed.encode("utf-8", "replace"), *overrides])


YAML_SNIPPETS = (
    b"!!python/object/apply:os.system ['exit 3']",
    b"x: !!python/name:os.system",
    b"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e]",
    b"m: &m {a: 1}\n<<: [*m, *m]",
    b"&a [*a]",
    b"{" * 400,
    b"[" * 2000,
    b"2020-13-45",
    b"0b2",
    b"1" * 5000,
    b"1:" * 300 + b"1",
    b"!!binary x",
    b"!!timestamp x",
    b"!!float x",
    b"!!int ''",
    b"!!set {a, b}",
    b"!!omap [1]",
    b"{[1]: 2}",
    b"? {a: b}\n: c",
    b".inf",
    b".nan",
    b"'\xed\xa0\x80'",
    b'"\\ud800"',
    b"%YAML 9.9\n---\n",
    b"a: 1\n---\nb: 2",
)


def safetensors(data: bytes, random: Random) -> bytes:
    """The header's table changed, with its length made right again, or numbers of the body."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    if length > len(data) or random.random() < 0.4:
        return data[: 8 + length] + numbers(body, random)
    try:
        named = json.loads(header)
        first = random.random() < 0.3 and isinstance(named.get("__metadata__"), dict)
        if first:
            named["__metadata__"] = tree(named["__metadata__"], random)
        else:
            named = tree(named, random)
        deflated = named.get("__metadata__", {}).get("deflated")
        if isinstance(deflated, str) and random.random() < 0.3:
            named["__metadata__"]["deflated"] = json.dumps(tree(json.loads(deflated), random))
        changed = json.dumps(named).encode()
    except (ValueError, RecursionError, AttributeError):
        return noise(data, random)
    changed += b" " * (-len(changed) % 8)
    return len(changed).to_bytes(8, "little") + changed + body


def numbers(data: bytes, random: Random) -> bytes:
    """Numbers of 8, 4 or 1 bytes, at places where such numbers lie, made extreme."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        code = random.choice(("<q", "<q", "<i", "<i", "<f", "<e", "<B"))
        size = struct.calcsize(code)
        if len(changed) < size:
            return noise(data, random)
        place = size * random.randrange(len(changed) // size)
        if code in ("<f", "<e"):
            new: Any = random.choice((float("nan"), float("inf"), -float("inf"), -1.0, 0.0))
        else:
            most = 1 << (8 * size)
            low = 0 if code == "<B" else most // 2
            near = struct.unpack_from(code, changed, place)[0] + random.choice((-1, 1))
            wanted = near if random.random() < 0.3 else random.choice(INTS + LARGE)
            new = (wanted + low) % most - low
        struct.pack_into(code, changed, place, new)
    return bytes(changed)


def lines(data: bytes, random: Random) -> bytes:
    """Text of numbers: a token or a line is changed, doubled, moved or dropped."""
    rows = data.split(b"\n")
    row = random.randrange(len(rows))
    kind = random.randrange(6)
    if kind == 0:
        rows.insert(row, random.choice(rows))
    elif kind == 1 and len(rows) > 1:
        del rows[row]
    elif kind == 2:
        rows[row] = rows[row] * random.choice((2, 3, 100))
    else:
        tokens = rows[row].split(b" ")
        place = random.randrange(len(tokens))
        hostile = str(random.choice(VALUES)).encode("utf-8", "replace")
        tokens[place] = random.choice(
            (hostile, hostile + b":1", b"1:" + hostile, hostile + b",1", b"", b"\t", b"\r", b"1:1e",
             b"1:" + b"9" * 400, b"1:." , b"+1:1", b"1::1", b"1,,2", b"\xff", b"0" * 30 + b":1")
        )  # fmt: skip
        rows[row] = b" ".join(tokens)
    return b"\n".join(rows)


def packed(data: bytes, random: Random) -> bytes:
    """A .gz or .xz file: its content changed and packed again, or its bytes."""
    try:
        if data[:2] == b"\x1f\x8b":
            return gzip.compress(lines(gzip.decompress(data[:65536]), random)[:65536], 1, mtime=0)
        if data[:1] == b"\xfd":
            return lzma.compress(lines(lzma.decompress(data[:65536]), random)[:65536], preset=0)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, MemoryError):
        pass
    return noise(data, random)


def noise(data: bytes, random: Random) -> bytes:
    """Bytes changed, dropped or doubled anywhere."""
    changed = bytearray(data or b"\0")
    for _ in range(random.randrange(1, 5)):
        place = random.randrange(len(changed) + 1)
        kind = random.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] = random.randrange(256)
        elif kind == 1:
            del changed[place : place + random.choice((1, 4, 8, 100))]
        elif kind == 2:
            changed[place:place] = changed[place : place + random.choice((1, 8, 64))]
        else:
            changed[place:place] = bytes([random.randrange(256)])
    return bytes(changed)
