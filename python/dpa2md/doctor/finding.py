"""What a probe finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    verdict: str  # "ok", "note" or "problem"
    text: str
    remedy: str = ""  # what to do about a note or a problem
