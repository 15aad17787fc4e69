"""The site of these pages: ``make docs`` builds it, and takes every warning for an error."""

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

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings, written as on GitHub
highlight_language = "text"  # blocks of commands, and of what they print

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
