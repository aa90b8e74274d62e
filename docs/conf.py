"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "python"))

metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
project = metadata["name"]
release = version = metadata["version"]
author = metadata["authors"][0]["name"]
copyright = f"2026, {author}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

# Every heading can be linked to, as on the pages of a repository.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block", "deflist"]

# Docstrings are numpydoc's; the compiled core and optional libraries need not be installed to read them.
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_mock_imports = ["dpa2md._core", "torch", "torch_sim"]
autodoc_typehints = "none"  # the parameters' texts say it with shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
default_role = "code"

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["dpa2md.css"]
html_copy_source = False
