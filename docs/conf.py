"""The site of these pages: ``make docs`` builds it, and takes every warning for an error."""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from ray_xml import __version__

project = "ray_xml"
author = "The authors of ray_xml"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
root_doc = "index"
html_theme = "furo"
html_title = f"ray_xml {__version__}"
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings, written as on GitHub
highlight_language = "text"  # blocks of commands, and of what they print
suppress_warnings = ["misc.highlighting_failure"]  # JSON that is shown with a … is no JSON

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
napoleon_use_rtype = False


def setup(app: Sphinx) -> None:
    """Formulas become MathML when the site is built: a page loads nothing from elsewhere."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))


def _inline_formula(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _formula(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f"<p>{tex2mathml(node.astext(), as_block=True)}</p>")
    raise nodes.SkipNode
