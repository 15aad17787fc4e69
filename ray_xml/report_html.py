"""The page around a report's parts: one HTML file that needs nothing else.

Its style follows the reader's light or dark setting, fits a phone, and prints. A policy in the page
forbids it to load or run anything, so that even a name that got through unescaped could do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ray_xml.charts import Chart
from ray_xml.svg import plain

_LIGHT = """
--bg:#ffffff;--card:#f6f7f9;--fg:#1c2127;--dim:#5b6570;--rule:#d5dae0;--grid:#e7eaee;
--1:#2563b8;--2:#d9731a;--3:#23875a;--4:#b8336a;--5:#7a52b3;--6:#8a6d1f;--7:#1f8a99;--8:#7d8590;
--good:#1a7f4b;--bad:#b3261e;
--h0:#bcd3f0;--h1:#96bae6;--h2:#6f9fda;--h3:#4b84cb;--h4:#2f69b3;--h5:#1f5093;--h6:#143a70;
--h7:#0a244c;"""
_DARK = """
--bg:#14171b;--card:#1c2026;--fg:#e4e8ec;--dim:#9aa5b1;--rule:#3a424c;--grid:#272d35;
--1:#6ea8ff;--2:#f5a05a;--3:#5cc795;--4:#f07fae;--5:#b79af0;--6:#d6b95c;--7:#5cc9d6;--8:#98a2ad;
--good:#5cc795;--bad:#ff8a80;
--h0:#24364f;--h1:#2c4a75;--h2:#36609b;--h3:#4378bf;--h4:#5a92dc;--h5:#7eaeee;--h6:#a9caf7;
--h7:#d6e6fd;"""
_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:1rem;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-bottom:1px solid var(--rule);padding-bottom:.2rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p,li{max-width:75ch}
p.note,figcaption,.dim{color:var(--dim)}
.notes{border-left:4px solid var(--2);background:var(--card);padding:.4rem .8rem;margin:1rem 0}
.notes ul{margin:.2rem 0;padding-left:1.2rem}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0}
dl.facts dt{color:var(--dim)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--grid);vertical-align:top}
th{color:var(--dim);font-weight:600;white-space:nowrap}
th.l,td.l{text-align:left}
td.l bdi{display:inline-block;min-width:7rem;overflow-wrap:anywhere}
.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:1rem}
figure{margin:0;background:var(--card);border-radius:8px;padding:.7rem;break-inside:avoid;
max-width:600px}
figure>b{display:block;font-weight:600;margin-bottom:.3rem}
figcaption{font-size:.85rem;margin-top:.3rem}
svg.chart{width:100%;height:auto;display:block;font:12px system-ui,sans-serif}
svg text{fill:var(--dim)}svg text.word{fill:var(--fg);font-size:11px;
paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}
.axis{stroke:var(--dim);stroke-width:1}.grid{stroke:var(--grid);stroke-width:1}
.mark{stroke:var(--dim);stroke-width:1;stroke-dasharray:2 3}
polyline{stroke-width:2;stroke-linejoin:round}
.faint{opacity:.35;stroke-width:1}.dashed{stroke-dasharray:5 4}
ul.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem .9rem;margin:.3rem 0 0;padding:0;
font-size:.85rem}
ul.legend li{overflow-wrap:anywhere}
ul.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
@media (max-width:500px){svg.chart{font-size:14px}}
details{margin:.6rem 0}summary{cursor:pointer;font-weight:600}
pre,code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);padding:.7rem;border-radius:8px;overflow-x:auto}
code{overflow-wrap:anywhere}
.documents{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:1rem}
article{background:var(--card);border-radius:8px;padding:.7rem;break-inside:avoid;
overflow-wrap:anywhere}
article h4{margin:0}article p{margin:.2rem 0 .4rem}article ul{list-style:none;margin:0;padding:0}
article li{display:flex;gap:.4rem}article li span{flex:none;font-variant-numeric:tabular-nums}
footer{color:var(--dim);margin-top:2rem;font-size:.85rem}
@media print{body{max-width:none;padding:0;font-size:12px}.charts{grid-template-columns:1fr 1fr}
figure,article,pre{border:1px solid #ccc}
.wide,pre{overflow:visible}pre{white-space:pre-wrap}h2,h3{break-after:avoid}}
"""


def page(title: str, body: Sequence[str]) -> str:
    """The whole file.

    Args:
        title: plain text. body: markup.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{words(title)}</title>",
            f"<style>:root{{{_LIGHT}}}",
            f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}",
            _classes() + _STYLE + "</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def words(content: str) -> str:
    """Text of any origin as markup."""
    return escape(plain(content))


def name(content: str) -> str:
    """A label's or document's name as markup: it may be written from right to left."""
    return f"<bdi>{words(content)}</bdi>"


def section(title: str, *parts: str) -> str:
    """A section; parts that are empty are left out, and so is a section without any."""
    filled = [part for part in parts if part]
    return "\n".join([f"<section>\n<h2>{words(title)}</h2>", *filled, "</section>"] * bool(filled))


def paragraph(content: str) -> str:
    """A remark below a heading or beside a table; plain text."""
    return f'<p class="note">{words(content)}</p>'


def notes(some: Sequence[str]) -> str:
    """What is to be known before the report is read; plain texts."""
    items = "".join(f"<li>{words(one)}</li>" for one in some)
    return f'<div class="notes"><ul>{items}</ul></div>' if some else ""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of what and which, in plain text; those that are empty are left out."""
    items = "".join(
        f"<dt>{words(key)}</dt><dd>{words(value)}</dd>" for key, value in pairs if value
    )
    return f'<dl class="facts">{items}</dl>'


def figure(title: str, chart: Chart, caption: str = "") -> str:
    """A chart with its legend; title and caption are plain text."""
    items = "".join(
        f'<li><i class="b{style}"></i>{name(what)}</li>' for style, what in chart.legend
    )
    legend = f'<ul class="legend">{items}</ul>' if len(chart.legend) > 1 else ""
    below = f"<figcaption>{words(caption)}</figcaption>" if caption else ""
    return f"<figure><b>{words(title)}</b>{chart.markup}{legend}{below}</figure>"


def charts(*figures: str) -> str:
    """Figures beside each other where there is room; those that are empty are left out."""
    filled = [one for one in figures if one]
    return "\n".join(['<div class="charts">', *filled, "</div>"] * bool(filled))


def beside(*parts: str) -> str:
    """Any markup laid out like ``charts``."""
    return charts(*(f"<div>{part}</div>" for part in parts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table.

    Args:
        head: plain texts. rows: markup (``words``, ``name``).
        left: how many columns from the left hold words, not numbers.
    """

    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{kind} class="l">{cell}</{kind}>' if place < left else f"<{kind}>{cell}</{kind}>"
            for place, cell in enumerate(row)
        )

    lines = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = cells("th", [words(one) for one in head])
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """What is shown when asked for: plain texts, the content as it is laid out."""
    kept = "\n".join(plain(line) for line in content.split("\n"))
    return f"<details><summary>{words(summary)}</summary><pre>{escape(kept)}</pre></details>"


def _classes() -> str:
    """Colours of strokes, fills and legends by number, and the shades of a map."""
    parts = [
        f".s{n}{{stroke:var(--{n})}}.f{n}{{fill:var(--{n})}}.b{n}{{background:var(--{n})}}"
        for n in range(1, 9)
    ]
    return "".join([*parts, *(f".h{n}{{fill:var(--h{n})}}" for n in range(8))])
