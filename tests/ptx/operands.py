"""Registers, addresses and numbers of PTX as C++, for translate.py."""

from __future__ import annotations

import re

# Types of registers, variables and instructions.
TYPES = {
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in "su" for bits in (8, 16, 32, 64)},
    **{f"b{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
    "pred": "bool",
    # as bits
    **dict.fromkeys(("f16", "bf16"), "u16"),
    **dict.fromkeys(("f16x2", "bf16x2", "tf32"), "u32"),
}
HALVES = ("f16", "f16x2", "bf16", "bf16x2")
SIZES = {"float": 4, "double": 8} | {f"{kind}{8 * n}": n for kind in "su" for n in (1, 2, 4, 8)}
SPECIAL = {
    "%tid.x": "t.tid",
    "%ntid.x": "t.ntid",
    "%ctaid.x": "t.ctaid",
    "%nctaid.x": "t.nctaid",
    **{f"%{name}.{axis}": "u32(0)" for name in ("tid", "ctaid") for axis in "yz"},
    **{f"%{name}.{axis}": "u32(1)" for name in ("ntid", "nctaid") for axis in "yz"},
    "%laneid": "t.lane()",
    "%warpid": "t.warp()",
    "%lanemask_eq": "(u32(1) << t.lane())",
    "%lanemask_lt": "((u32(1) << t.lane()) - 1)",
    "%lanemask_le": "~(~u32(1) << t.lane())",
    "%lanemask_gt": "(~u32(1) << t.lane())",
    "%lanemask_ge": "(~u32(0) << t.lane())",
    "WARP_SZ": "u32(32)",
}


def split_operands(text: str) -> list[str]:
    """At the commas outside braces and brackets."""
    out, depth = [""], 0
    for c in text:
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            out.append("")
        else:
            out[-1] += c
    return [o.strip() for o in out if o.strip()]


def label(text: str) -> str:
    return text.replace("$", "").replace("%", "")


def parameter(text: str) -> tuple[str, str, int]:
    """Name, PTX type and bytes of ".param .align 8 .b8 name[16]" or ".param .b32 name"."""
    match = re.fullmatch(r"\.param (?:\.align \d+ )?\.(\w+) (\w+)(?:\[(\d+)\])?", text.strip())
    if not match:
        raise ValueError(f"no such parameter: {text}")
    return match[2], match[1], SIZES[TYPES[match[1]]] * int(match[3] or 1)


def flushes(op: list[str], kind: str) -> bool:
    return "ftz" in op and kind == "float"


class Operands:
    """What a function has declared, and what its instructions take."""

    def __init__(self, params: list[tuple[str, str, int]]):
        self.registers: dict[str, str] = {}
        self.lines: list[str] = []
        self.symbols = {p for p, _, _ in params}  # what has an address
        self.shared: set[str] = set()
        self.name = ""

    def operand(self, text: str, kind: str) -> str:
        """A source operand as a C++ expression of the type."""
        if text in SPECIAL:
            return f"as<{kind}>({SPECIAL[text]})"
        if text in self.shared:
            return f"{kind}(0)"  # addresses of shared memory count from its begin
        if text in self.symbols:
            return f"as<{kind}>(u64({text}))"
        if text.startswith(("0f", "0F")):
            return f"as<{kind}>(as<float>(u32(0x{text[2:]}u)))"
        if text.startswith(("0d", "0D")):
            return f"as<{kind}>(as<double>(u64(0x{text[2:]}ull)))"
        if re.fullmatch(r"-?\d+|0x[0-9A-Fa-f]+", text):
            return f"{kind}({text}ll)" if kind != "bool" else f"bool({text})"
        if text.startswith("!"):
            return f"!{self.register(text[1:])}"
        return f"as<{kind}>({self.register(text)})"

    def register(self, text: str) -> str:
        name = text.replace("%", "")
        if name not in self.registers:
            raise ValueError(f"no such register: {text!r} in {self.name}")
        return name

    def address(self, text: str, shared: bool = False) -> str:
        base, _, offset = text.strip("[]").partition("+")
        if shared:
            return f"u64(t.shared) + u32({self.operand(base, 'u32')} + u32({offset or 0}ll))"
        return f"{self.operand(base, 'u64')} + u64({offset or 0}ll)"

    def set(self, to: str, value: str) -> str:
        if to == "_":
            return f"(void)({value});"
        return f"put({self.register(to)}, {value});"

    def declare(self, text: str) -> None:
        """.reg, .local or .param within the body."""
        if match := re.fullmatch(r"\.reg \.(\w+) %(\w+)<(\d+)>", text):
            kind, name, count = TYPES[match[1]], match[2], int(match[3])
            names = [f"{name}{k}" for k in range(1, count)]
        elif match := re.fullmatch(r"\.reg \.(\w+) ([\w%, ]+)", text):
            kind, names = TYPES[match[1]], [n.strip(" %") for n in match[2].split(",")]
        elif match := re.fullmatch(r"\.local \.align (\d+) \.b8 (\w+)\[(\d+)\]", text):
            self.symbols.add(match[2])
            self.lines.append(f"alignas({match[1]}) unsigned char {match[2]}[{match[3]}];")
            return
        elif text.startswith(".pragma"):
            return
        elif text.startswith(".param"):
            name, _, size = parameter(text)
            self.lines.append(f"alignas(16) unsigned char {name}[{size}];")
            self.symbols.add(name)
            return
        else:
            raise ValueError(f"no such declaration: {text}")
        self.registers |= dict.fromkeys(names, kind)
        for k in range(0, len(names), 16):
            self.lines.append(f"{kind} {', '.join(n + '{}' for n in names[k : k + 16])};")

    def values(self, args: list[str], kind: str) -> str:
        return ", ".join(self.operand(a, kind) for a in args)

    def floats(self, op: list[str], args: list[str], kind: str) -> str:
        """Values, with ftz zeros for denormal numbers."""
        values = [self.operand(a, kind) for a in args]
        return (
            ", ".join(f"flushed({v})" for v in values) if flushes(op, kind) else ", ".join(values)
        )
