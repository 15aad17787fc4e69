"""The server's two pages: one to try it, one that tells how to ask. Each is one file that loads
nothing, follows the reader's light or dark setting, and fits a phone.

Whatever comes from a model or a text is put in as text, never as markup; besides, a policy allows
the pages only the script and style that they come with, and requests to their own server.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

from ray_xml.serve_request import TOP_K, Limits

_STYLE = """
:root{--bg:#fff;--card:#f5f6f8;--fg:#1c2127;--dim:#5b6570;--rule:#d5dae0;--bar:#2563b8;
--good:#176b40;--goodbg:#dcf2e6;--bad:#a3231b;--badbg:#fbe3e1;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1d2127;--fg:#e4e8ec;--dim:#9aa5b1;
--rule:#3a424c;--bar:#5b97ee;--good:#7bd8ab;--goodbg:#173527;--bad:#ff9d94;--badbg:#42201d}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:46rem;padding:1.2rem 1rem 3rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
h1{font-size:1.5rem;line-height:1.2;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .4rem}
.dim{color:var(--dim);margin:.2rem 0 1rem;overflow-wrap:anywhere}a{color:var(--bar)}
textarea{display:block;width:100%;min-height:8rem;padding:.7rem;font:inherit;color:inherit;
background:var(--card);border:1px solid var(--rule);border-radius:8px;resize:vertical}
.row{display:flex;flex-wrap:wrap;gap:.6rem 1.2rem;align-items:center;margin:.8rem 0}
input[type=number]{width:4.5rem;padding:.35rem .5rem;font:inherit;color:inherit;
background:var(--card);border:1px solid var(--rule);border-radius:6px}
button{margin-left:auto;padding:.5rem 1.3rem;font:inherit;font-weight:600;color:#fff;
background:#2563b8;border:0;border-radius:8px;cursor:pointer}
button:disabled{opacity:.6;cursor:default}
:focus-visible{outline:3px solid var(--bar);outline-offset:2px}
#error{background:var(--badbg);color:var(--bad);border-radius:8px;padding:.7rem .9rem;
overflow-wrap:anywhere}
ol{list-style:none;margin:1rem 0 0;padding:0}
#labels li{padding:.7rem 0;border-top:1px solid var(--rule)}
.name{display:flex;gap:1rem;justify-content:space-between;align-items:baseline}
.name bdi{font-weight:600;overflow-wrap:anywhere}
.name span{font-variant-numeric:tabular-nums;color:var(--dim);white-space:nowrap}
.track{height:.5rem;margin:.3rem 0;background:var(--card);border-radius:4px;overflow:hidden}
.track div{height:100%;min-width:2px;background:var(--bar);border-radius:4px}
.terms{display:flex;flex-wrap:wrap;gap:.3rem;margin-top:.4rem}
.terms span{font-size:.85rem;padding:.05rem .5rem;border-radius:99px;overflow-wrap:anywhere}
.for{color:var(--good);background:var(--goodbg)}.against{color:var(--bad);background:var(--badbg)}
pre{background:var(--card);padding:.8rem;border-radius:8px;overflow-x:auto;
font:13px/1.45 ui-monospace,Menlo,Consolas,monospace}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
td:first-child{width:10rem}
td,th{padding:.3rem .8rem .3rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--rule)}
code{font:13px ui-monospace,Menlo,Consolas,monospace}
"""
_SCRIPT = """
"use strict";
const at = (id) => document.getElementById(id);
const make = (kind, style, text) => {
  const made = document.createElement(kind);
  if (style) made.className = style;
  if (text !== undefined) made.textContent = text;
  return made;
};
const fail = (why) => { at("error").textContent = why; at("error").hidden = !why; };

function shown(label) {
  const item = make("li"), name = make("div", "name"), track = make("div", "track");
  const share = 100 * label.probability;
  const percent = (share < 0.05 ? "< 0.1" : share.toFixed(1)) + " %";
  name.append(make("bdi", "", label.name === null ? "label " + label.label : label.name));
  name.append(make("span", "", percent));
  const bar = make("div");
  bar.style.width = share + "%";
  track.append(bar);
  item.append(name, track);
  if (label.terms && label.terms.length) {
    const terms = make("div", "terms");
    for (const one of label.terms) {
      const sign = one.contribution > 0 ? "+" : "\\u2212";
      const value = Math.abs(one.contribution).toFixed(2);
      const chip = make("span", one.contribution > 0 ? "for" : "against");
      chip.append(make("bdi", "", one.term), " " + sign + value);
      terms.append(chip);
    }
    item.append(terms);
  }
  return item;
}

async function ask(event) {
  event.preventDefault();
  fail("");
  at("labels").replaceChildren();
  at("told").textContent = "asking\\u2026";
  at("go").disabled = true;
  const began = performance.now();
  try {
    const body = {text: at("text").value, top_k: Number(at("top").value),
                  explain: at("why").checked};
    const answer = await fetch("tag", {method: "POST", body: JSON.stringify(body),
                                       headers: {"Content-Type": "application/json"}});
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
    const labels = told.documents[0].labels;
    at("labels").replaceChildren(...labels.map(shown));
    const took = Math.round(performance.now() - began);
    at("told").textContent = labels.length
      ? labels.length + (labels.length === 1 ? " label in " : " labels in ") + took + " ms"
        + (body.explain ? "; the words behind each, with what they add to its log-odds" : "")
      : "no label: the model knows none of these words";
  } catch (error) {
    at("told").textContent = "";
    fail(error instanceof TypeError ? "the server does not answer" : error.message);
  } finally {
    at("go").disabled = false;
  }
}

at("form").addEventListener("submit", ask);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});
"""
_TRY = """
<h1>Labels for a text</h1>
<p class="dim">{about} · <a href="docs">how to ask by program</a></p>
<form id="form">
<label for="text">Text</label>
<textarea id="text" required maxlength="{characters}" autofocus
 placeholder="Type or paste a text, then press Ctrl+Enter"></textarea>
<div class="row">
<label>Labels <input id="top" type="number" min="1" max="{most}" value="{top_k}" required></label>
<label><input id="why" type="checkbox" checked> explain them</label>
<button id="go">Find labels</button>
</div>
</form>
<p id="error" role="alert" hidden></p>
<p id="told" class="dim" role="status"></p>
<ol id="labels"></ol>
"""
_EXAMPLE = """curl http://127.0.0.1:8000/tag -H 'Content-Type: application/json' \\
  -d '{"texts": ["How do I sort a list?"], "top_k": 3, "explain": true}'"""


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# A bar's width is set by the script through the DOM, which a policy on styles does not touch.
DOCS_POLICY = (
    f"default-src 'none'; style-src {_digest(_STYLE)}; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
POLICY = f"{DOCS_POLICY}; script-src {_digest(_SCRIPT)}; connect-src 'self'"


def try_page(about: str, limits: Limits) -> str:
    """A page with a form.

    Args:
        about: of the model, plain text.
    """
    body = _TRY.format(
        about=escape(about),
        characters=limits.characters,
        most=min(limits.top_k, limits.explained),
        top_k=TOP_K,
    )
    return _page("Labels for a text", f"{body}<script>{_SCRIPT}</script>")


def docs_page(spec: dict[str, Any]) -> str:
    """An OpenAPI description, from ``serve_openapi``, as a page."""
    schemas = spec["components"]["schemas"]
    answer = schemas["Answer"]["properties"]["documents"]["items"]["properties"]["labels"]["items"]
    paths = [
        (f"<code>{method.upper()} {escape(path)}</code>", escape(told["summary"]))
        for path, methods in spec["paths"].items()
        for method, told in methods.items()
    ]
    errors = [
        (f"<code>{status}</code>", escape(told["description"]))
        for status, told in spec["paths"]["/tag"]["post"]["responses"].items()
    ]
    parts = [
        f"<h1>{escape(spec['info']['title'])} {escape(spec['info']['version'])}</h1>",
        '<p class="dim"><a href="./">try it</a> · <a href="openapi.json">OpenAPI</a></p>',
        _table(paths),
        f"<h2>Example</h2><pre>{escape(_EXAMPLE)}</pre>",
        f"<h2>What a request says</h2><p>{escape(schemas['Request']['description'])}</p>",
        _table(_properties(schemas["Request"])),
        "<h2>What is said of each label</h2>",
        "<p>An answer has <code>documents</code>, one a text in order, and each has "
        "<code>labels</code>, most probable first.</p>",
        _table(_properties(answer)),
        "<h2>Status</h2><p>An error is an object with <code>error</code>, a message.</p>",
        _table(errors),
    ]
    return _page("ray_xml: how to ask", "\n".join(parts))


def _properties(schema: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, told in schema["properties"].items():
        limits = [
            f"{word} {told[key]:,}"
            for key, word in (
                ("minimum", "at least"), ("maximum", "at most"), ("maxItems", "at most"),
                ("maxLength", "characters:"), ("default", "default"),
            )
            if key in told and not isinstance(told[key], bool)
        ]  # fmt: skip
        kind = told["type"] if isinstance(told["type"], str) else " or ".join(told["type"])
        words = "; ".join([f"{kind}{''.join(f', {one}' for one in limits)}", told["description"]])
        rows.append((f"<code>{escape(name)}</code>", escape(words)))
    return rows


def _table(rows: list[tuple[str, str]]) -> str:
    """Of markup."""
    lines = "\n".join(f"<tr><td>{left}</td><td>{right}</td></tr>" for left, right in rows)
    return f'<div class="wide"><table>\n{lines}\n</table></div>'


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
