"""Files that DeePMD-kit wrote itself, which are not part of this repository (DPA2MD_GOLDEN_DIR)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.paths import ROOT

GOLDEN = Path(os.environ.get("DPA2MD_GOLDEN_DIR", ROOT.parent / "shared" / "golden"))
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="DPA2MD_GOLDEN_DIR names no directory with DeePMD-kit's files"
)
