"""Draws the data flow of a step: python docs/draw_story.py docs/story.svg

The stages come from the core's table, csrc/engine/stages.h. Every box has its own fill and dark letters, lines
are a middle grey: readable on light and dark pages.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.sax.saxutils import escape

from dpa2md import _core

WIDTH, COLUMN, HEIGHT, STEP = 440, 200, 38, 52
LEFT, RIGHT, TOP = 6, WIDTH - COLUMN - 6, 8
FILL = {"data": "#e2e8f0", "forward": "#cfe3ff", "backward": "#ffdfc2", "exchange": "#c9f0d3"}
GREY = "#808080"

# (kind, name, what it gives)
Box = tuple[str, str, str]


def stages(layered: bool, backward: bool) -> list[Box]:
    """Those of the layers or the others, forward or backward, in the order of a step."""
    kind = "backward" if backward else "forward"
    return [
        (kind, name, gives) for name, *kinds, gives in _core.stages if kinds == [layered, backward]
    ]


# The layer loops stand between these. Forward runs downwards ...
INPUT = [
    ("data", "positions, types, cell", ""),
    ("data", "neighbors", "candidate pairs, kept a while"),
    ("data", "build_pairs", "one list, nearest first"),
]
*FORWARD, FITTING = stages(layered=False, backward=False)
LAYER = [("exchange", "exchange.forward", "g1 of owners to ghosts")]
LAYER += stages(layered=True, backward=False)
# ... and backward upwards, listed here from top to bottom.
*_BACKWARD, _FORCES = stages(layered=False, backward=True)
OUTPUT = [("data", "forces, virial", "made here and nowhere else"), _FORCES]
BACKWARD = _BACKWARD[::-1]
LAYER_BACKWARD = [("exchange", "exchange.reverse", "ghosts' dg1 added to owners'")]
LAYER_BACKWARD += stages(layered=True, backward=True)[::-1]


def box(x: float, y: float, kind: str, name: str, gives: str, width: float = COLUMN) -> str:
    """A named box; (x, y) is its upper left corner."""
    middle = x + width / 2
    lines = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="6" fill="{FILL[kind]}"/>',
        f'<text class="name" x="{middle}" y="{y + (16 if gives else 23)}">{escape(name)}</text>',
    ]
    if gives:
        lines.append(f'<text class="gives" x="{middle}" y="{y + 31}">{escape(gives)}</text>')
    return "\n".join(lines)


def arrow(x: float, start: float, end: float) -> str:
    """A vertical arrow."""
    return f'<path class="flow" d="M{x} {start} V{end}" marker-end="url(#head)"/>'


def column(x: float, y: float, boxes: list[Box], up: bool = False) -> list[str]:
    """Boxes below one another with arrows between them."""
    out = [box(x, y + k * STEP, *b) for k, b in enumerate(boxes)]
    for k in range(len(boxes) - 1):
        upper, lower = y + k * STEP + HEIGHT, y + (k + 1) * STEP
        out.append(arrow(x + COLUMN / 2, *((lower, upper + 3) if up else (upper, lower - 3))))
    return out


def frame(x: float, y: float, rows: int, text: str) -> list[str]:
    """The loop over layers around `rows` boxes."""
    height = rows * STEP - (STEP - HEIGHT) + 30
    return [
        f'<rect class="loop" x="{x - 5}" y="{y - 24}" width="{COLUMN + 10}" height="{height}" rx="8"/>',
        f'<text class="note" x="{x + COLUMN / 2}" y="{y - 9}">{text}</text>',
    ]


def drawing() -> str:
    """The whole drawing as SVG."""
    inner = TOP + 3 * STEP
    loop = inner + len(FORWARD) * STEP + 28
    bottom = loop + 4 * STEP + 20
    left, right = LEFT + COLUMN / 2, RIGHT + COLUMN / 2
    body = column(LEFT, TOP, INPUT + FORWARD)
    body += frame(LEFT, loop, 4, "every repformer layer")
    body += column(LEFT, loop + STEP / 2, LAYER)
    body += [
        arrow(left, loop - 28 - STEP + HEIGHT, loop - 27),
        arrow(left, loop + 3.5 * STEP - (STEP - HEIGHT), bottom - 3),
    ]
    body.append(box(LEFT, bottom, *FITTING, WIDTH - 12))
    body += frame(RIGHT, loop, 4, "every layer, last one first")
    body += column(RIGHT, loop, LAYER_BACKWARD, up=True)
    body += [
        arrow(right, bottom, loop + 4 * STEP - (STEP - HEIGHT) + 3),
        arrow(right, loop - 25, loop - 28 - STEP + HEIGHT + 3),
    ]
    body += column(RIGHT, TOP + STEP, OUTPUT + BACKWARD, up=True)
    height = bottom + HEIGHT + 8
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">
<title>One step: stages forward on the left, their reverse on the right</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="{GREY}"/></marker></defs>
<style>
text {{ text-anchor: middle; font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif }}
.name {{ font-size: 14px; font-weight: 600; fill: #10182b }}
.gives {{ font-size: 12px; fill: #2b3650 }}
.note {{ font-size: 12px; fill: {GREY} }}
.flow {{ stroke: {GREY}; stroke-width: 1.6; fill: none }}
.loop {{ stroke: {GREY}; stroke-width: 1.2; stroke-dasharray: 5 4; fill: none }}
</style>
{chr(10).join(body)}
</svg>
"""


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.parse_args().output.write_text(drawing())


if __name__ == "__main__":
    main()
