"""What PTX instructions cost on sm_90, for profile.h: which pipe takes them, and how often.

About: long divisions are loops of many instructions; moves, changes of address space and parameters cost
nothing. What is not listed takes one instruction of the integer pipe.
"""

from __future__ import annotations

import re
from functools import cache

PIPES = (
    "float",
    "double",
    "integer",
    "special",
    "branch",
    "shuffle",
    "tensor",
    "tensor_double",
    "barrier",
)
COSTS = {
    r"(mov|cvta|ld\.param|st\.param|neg|abs|ld|st|not\.pred)\b": (None, 0),
    r"(add|sub|mul|fma|min|max)\..*f32": ("float", 1),
    r"(add|sub|mul|fma|min|max|setp|selp)\..*f64": ("double", 1),
    r"(div|sqrt)\..*f32": ("float", 8),
    r"rcp\.rn\.f32": ("float", 5),
    r"(ex2|rcp\.approx)\.": ("special", 1),
    r"(div|sqrt)\..*f64": ("double", 16),
    r"rcp\.rn\.f64": ("double", 9),
    r"cvt\.f32\.f16\b": ("float", 1),
    r"cvt\..*(f64|\.f32\.s|\.s\d+\.f32)": ("special", 1),
    r"(div|rem)\.[su]32": ("integer", 20),
    r"(div|rem)\.[su]64": ("integer", 70),
    r"mul\.(lo|hi)\.[su]64": ("integer", 4),
    r"(add|sub|and|or|xor|shl|shr|setp\.\w+|selp|min|max)\.[sub]64": ("integer", 2),
    r"(bra|ret|call)\b": ("branch", 1),
    r"shfl\.": ("shuffle", 1),
    r"(atom|bar)\.": ("barrier", 1),
    r"mma\..*(tf32|f16)": ("tensor", 1),
    r"mma\..*f64": ("tensor_double", 1),
}


@cache
def cost(opcode: str) -> tuple[str | None, float]:
    """Pipe and number of instructions; memory has counts of its own."""
    for pattern, found in COSTS.items():
        if re.match(pattern, opcode):
            return found
    return "integer", 1
