"""How the documentation is built: `make docs`.

The source is the whole repository, so that every link between its Markdown files is checked.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "python"))

project = "dpa2md"
version = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
release = version
author = "The dpa2md developers"
copyright = f"2026, {author}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "**/README.md"]
exclude_patterns = [".*", "build", "dist", "demo-output", "**/.*", "**/__pycache__"]

# Every heading can be linked to, as in a repository's web pages.
myst_heading_anchors = 4

# Docstrings are numpydoc's. Neither the compiled core nor optional libraries are needed to read them.
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_mock_imports = ["dpa2md._core", "torch", "torch_sim"]
autodoc_typehints = "none"  # the texts tell them, with shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
default_role = "py:obj"
highlight_language = "none"  # where a block does not name one

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["dpa2md.css"]
html_extra_path = ["_root"]  # an index.html that leads to docs/index.html
html_copy_source = False
html_use_index = False  # the reference has its own contents
html_domain_indices = False


class CommandHelp(SphinxDirective):
    """What the command and each of its sub-commands print for --help."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        from dpa2md.cli import build_parser

        os.environ["COLUMNS"] = "80"  # where argparse breaks lines
        parser = build_parser()
        commands = parser._subparsers._group_actions[0].choices
        out: list[nodes.Node] = [_shell(parser.format_help())]
        for name, command in commands.items():
            section = nodes.section(ids=[f"dpa2md-{name}"])
            section += nodes.title(text=f"dpa2md {name}")
            section += _shell(command.format_help())
            out.append(section)
        return out


def _shell(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="none")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
