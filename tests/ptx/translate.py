"""Translates PTX, nvcc's output for the device, into C++ that the host runs: see machine.h.

Usage: translate.py INPUT.ptx OUTPUT_STEM PARTS   -> OUTPUT_STEM.0.cpp, ... (one for each part)

Every instruction becomes one statement, a call of the template of its name (instructions.h) in the types that it
names; registers become variables, labels stay labels. What it does not know it refuses.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from costs import PIPES, cost

# Types of registers, variables and instructions.
TYPES = {
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in "su" for bits in (8, 16, 32, 64)},
    **{f"b{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
    "pred": "bool",
}
SIZES = {"float": 4, "double": 8} | {f"{kind}{8 * n}": n for kind in "su" for n in (1, 2, 4, 8)}
SPECIAL = {"%tid.x": "t.tid", "%ntid.x": "t.ntid", "%ctaid.x": "t.ctaid", "%nctaid.x": "t.nctaid"}
# Plain arithmetic: result and operands are of the instruction's (last) type.
PLAIN = {
    "abs",
    "add",
    "and",
    "bfi",
    "copysign",
    "div",
    "ex2",
    "fma",
    "mad.lo",
    "max",
    "min",
    "mul",
    "mul.hi",
    "mul.lo",
    "neg",
    "not",
    "or",
    "rcp",
    "rem",
    "sqrt",
    "sub",
    "xor",
}
ROUNDING = {"rn", "rm", "approx", "ftz", "full"}


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


class Function:
    """One .entry or .func: its C++, statement by statement."""

    def __init__(self, name: str, entry: bool, threads: int, params: list[tuple[str, str, int]]):
        self.name, self.entry, self.threads = name, entry, threads
        self.params = params  # name, PTX type, bytes
        self.registers: dict[str, str] = {}
        self.lines: list[str] = []
        self.symbols = {p for p, _, _ in params}  # what has an address
        self.shared: set[str] = set()
        self.run: Counter[str] | None = None  # costs since the last label or branch

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
        return f"put({self.register(to)}, {value});"

    # -- statements

    def declare(self, text: str) -> None:
        """.reg, .local or .param within the body."""
        if match := re.fullmatch(r"\.reg \.(\w+) %(\w+)<(\d+)>", text):
            kind, name, count = TYPES[match[1]], match[2], int(match[3])
            names = [f"{name}{k}" for k in range(1, count)]
        elif match := re.fullmatch(r"\.reg \.(\w+) %?(\w+(, \w+)*)", text):
            kind, names = TYPES[match[1]], match[2].split(", ")
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

    def instruction(self, text: str, site: int, location: str, runs: list) -> None:
        guard = ""
        if match := re.match(r"@(!?)%(\w+)\s+", text):
            guard, text = f"if ({match[1]}{match[2]}) ", text[match.end() :]
        opcode, _, rest = text.partition(" ")
        if self.run is None:
            self.run = Counter()
            runs.append((location, self.run))
            self.lines.append(f"t.visit(runs + {len(runs) - 1});")
        pipe, times = cost(opcode)
        if pipe:
            self.run[pipe] += times
        if opcode.startswith(("bra", "call", "ret")):
            self.run = None
        code = self.translated(opcode.split("."), split_operands(rest), site)
        self.lines.append(f"{guard}{{ {code} }}" if guard else code)

    def translated(self, op: list[str], operands: list[str], site: int) -> str:
        name, kind = op[0], TYPES.get(op[-1], "")
        if name in ("ld", "st"):
            return self.memory(op, operands, kind, site)
        if name == "bra":
            return f"goto {label(operands[0])};"
        if name == "ret":
            return "return;"
        if name == "mov":
            return self.move(operands, kind)
        if name == "setp":
            compare, (to, *args) = op[1], operands
            return self.set(to, f"compare_{compare}<{kind}>({self.values(args, kind)})")
        if name == "selp":
            to, a, b, p = operands
            chosen = (
                f"{self.operand(p, 'bool')} ? {self.operand(a, kind)} : {self.operand(b, kind)}"
            )
            return self.set(to, chosen)
        if op == ["cvt", "rn", "f16x2", "f32"]:
            to, upper, lower = operands
            return self.set(
                to,
                f"two_halves({self.operand(lower, 'float')}, {self.operand(upper, 'float')})",
            )
        if op == ["cvt", "f32", "f16"]:
            return self.set(operands[0], f"from_half({self.operand(operands[1], 'u16')})")
        if name == "cvt":
            source, target = kind, TYPES[op[-2]]
            how = {"sat": "saturated", "rni": "rounded", "rzi": "converted", "rn": "converted"}
            how = how[op[1]] if len(op) == 4 else "converted"
            return self.set(
                operands[0], f"{how}<{target}, {source}>({self.values(operands[1:], source)})"
            )
        if name == "cvta":
            value = self.operand(operands[1], "u64")
            return self.set(operands[0], f"u64(t.shared) + {value}" if op[1] == "shared" else value)
        if name in ("shl", "shr"):
            to, a, n = operands
            return self.set(
                to, f"{name}<{kind}>({self.operand(a, kind)}, {self.operand(n, 'u32')})"
            )
        if op[:2] == ["mul", "wide"]:
            to, *args = operands
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            return self.set(to, f"mul_wide<{wide}>({self.values(args, kind)})")
        if name in ("bar", "shfl", "mma", "atom", "call"):
            return getattr(self, name)(op, operands, kind, site)
        parts = [p for p in op[:-1] if p not in ROUNDING]
        if ".".join(parts) in PLAIN:
            rounded = "_down" if "rm" in op else "_approx" if "approx" in op else ""
            to, *args = operands
            return self.set(to, f"{'_'.join(parts)}{rounded}_<{kind}>({self.values(args, kind)})")
        raise ValueError(f"no such instruction: {'.'.join(op)} {operands}")

    def values(self, args: list[str], kind: str) -> str:
        return ", ".join(self.operand(a, kind) for a in args)

    def move(self, operands: list[str], kind: str) -> str:
        to, source = operands
        if to.startswith("{"):
            low, high = split_operands(to.strip("{}"))
            if kind == "u32":
                value = self.operand(source, kind)
                return self.set(low, f"u16({value})") + self.set(high, f"u16({value} >> 16)")
            value = self.operand(source, "u64")
            return self.set(low, f"u32({value})") + self.set(high, f"u32({value} >> 32)")
        if source.startswith("{"):
            low, high = split_operands(source.strip("{}"))
            value = f"u64({self.operand(low, 'u32')}) | u64({self.operand(high, 'u32')}) << 32"
            return self.set(to, value)
        return self.set(to, self.operand(source, kind))

    def memory(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        space = op[1] if op[1] in ("param", "local", "global", "shared") else "generic"
        width = {"v2": 2, "v4": 4}.get(op[-2], 1)
        to_memory = op[0] == "st"
        address, registers = operands if to_memory else reversed(operands)
        names = split_operands(registers.strip("{}")) if width > 1 else [registers]
        where = self.address(address, space == "shared")
        out = [f"u64 at = {where};"]
        if space not in ("param", "local"):
            out.append(
                f"t.{'store' if to_memory else 'load'}(&at, {width * SIZES[kind]}, sites + {site});"
            )
        for k, name in enumerate(names):
            place = f"at + {k * SIZES[kind]}"
            if to_memory:
                out.append(f"write<{kind}>({place}, {self.operand(name, kind)});")
            else:
                out.append(self.set(name, f"read<{kind}>({place})"))
        return "{ " + " ".join(out) + " }"

    def bar(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        if op[1] == "sync":
            return f"t.barrier(sites + {site});"
        if op[1] == "warp":
            return f"t.warp_barrier(sites + {site});"
        to, _, value = operands  # bar.red.or.pred
        if op[1:3] != ["red", "or"]:
            raise ValueError(f"no such instruction: {op}")
        return self.set(to, f"t.any({self.operand(value, 'bool')}, sites + {site})")

    def shfl(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        to, a, b, c, mask = operands
        out, _, inside = to.partition("|")
        values = f"{self.operand(a, 'u32')}, {self.operand(b, 'u32')}, {self.operand(c, 'u32')}"
        call = f"t.shuffle_{op[2]}({values}, {self.operand(mask, 'u32')}, &inside, sites + {site})"
        also = self.set(inside, "inside") if inside else ""
        return f"{{ bool inside; {self.set(out, call)} {also} }}"

    def mma(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        shape, types = op[3], op[6:]
        known = {
            "m16n8k8.f32.tf32.tf32.f32": "Tf32",
            "m16n8k16.f32.f16.f16.f32": "F16",
            "m8n8k4.f64.f64.f64.f64": "F64",
        }
        name = known.get(".".join([shape, *types]))
        if not name:
            raise ValueError(f"no such instruction: {op}")
        d, a, b, c = (split_operands(o.strip("{}")) for o in operands)
        of_factors, of_sum = ("double", "double") if name == "F64" else ("u32", "float")
        lists = ", ".join(
            f"{{{self.values(x, k)}}}" for x, k in ((a, of_factors), (b, of_factors), (c, of_sum))
        )
        sets = " ".join(self.set(r, f"m.d[{k}]") for k, r in enumerate(d))
        return f"{{ Mma{name} m{{{lists}}}; t.multiply(&m, sites + {site}); {sets} }}"

    def atom(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        if op[1:3] != ["global", "add"] or kind not in ("u32", "s32"):
            raise ValueError(f"no such instruction: {op}")
        to, address, value = operands
        return self.set(
            to,
            f"t.atomic_add({self.address(address)}, {self.operand(value, 'u32')}, sites + {site})",
        )

    def call(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        groups = [split_operands(o.strip("()")) if o.startswith("(") else o for o in operands]
        returned = groups.pop(0) if isinstance(groups[0], list) else []
        name, args = groups[0], groups[1] if len(groups) > 1 else []
        return f"{name}({', '.join(['t', *returned, *args])});"

    # -- the whole

    def signature(self) -> str:
        arguments = ", ".join(["Thread& t", *(f"unsigned char* {p}" for p, _, _ in self.params)])
        return f"void {self.name}({arguments})"

    def text(self) -> str:
        out = [f"{self.signature()} {{", *(f"  {line}" for line in self.lines), "}"]
        if self.entry:
            spread = ", ".join(["t", *(f"p[{k}]" for k in range(len(self.params)))])
            sizes = ", ".join(str(size) for _, _, size in self.params)
            out.append(
                f'static const Kernel kernel_{self.name}{{"{self.name}", {self.threads}, {{{sizes}}},\n'
                f"    [](Thread& t, unsigned char* const* p) {{ {self.name}({spread}); }}}};"
            )
        return "\n".join(out) + "\n"


def label(text: str) -> str:
    return text.replace("$", "").replace("%", "")


def parameter(text: str) -> tuple[str, str, int]:
    """Name, PTX type and bytes of ".param .align 8 .b8 name[16]" or ".param .b32 name"."""
    match = re.fullmatch(r"\.param (?:\.align \d+ )?\.(\w+) (\w+)(?:\[(\d+)\])?", text.strip())
    if not match:
        raise ValueError(f"no such parameter: {text}")
    return match[2], match[1], SIZES[TYPES[match[1]]] * int(match[3] or 1)


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered, without comments, and with the braces of scopes in lines of their own."""
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"//.*", "", line).strip()
        line = re.sub(r"^\{\s*(?=\S)", "{\n", line)
        line = re.sub(r";\s*\}$", ";\n}", line)
        yield from ((number, piece) for piece in line.split("\n"))


# Instructions that the machine has something to say about.
SEEN = re.compile(r"(@!?%\w+ )?(ld|st|bar|shfl|mma|atom)\.")

HEADER = re.compile(
    r"(?:\.visible |\.weak )?\.(entry|func) (?:\(([^)]*)\) )?(\w+) ?\(([^)]*)\)"
    r"(?: \.noreturn)?(?: ?\.maxntid (\d+), 1, 1)?(?: ?\.minnctapersm \d+)? ?$"
)


class Module:
    """All functions of a PTX file, and where in the source each instruction that touches memory comes from."""

    def __init__(self, text: str):
        self.functions: list[Function] = []
        self.sites: list[tuple[int, str]] = []  # line of the PTX, source
        self.runs: list[tuple[str, Counter[str]]] = []  # source, costs
        self.files: dict[str, str] = {}
        self.shared: set[str] = set()
        self.location = ""
        statement, first, function, depth = "", 0, None, 0
        text = re.split(r"^\s*\.section", text, maxsplit=1, flags=re.MULTILINE)[0]  # debugger's
        for number, line in lines(text):
            if not line or line.startswith((".version", ".target", ".address_size")):
                continue
            if re.match(r"\.(file|loc)\s", line):
                self.locate(line)
            elif function and (match := re.fullmatch(r"(\$?\w+):", line)):
                function.lines.append(f"{label(match[1])}:;")
                function.run = None
            elif line == "{" and function is None:
                function, statement, depth = self.begin(statement), "", 1
            elif line == "{":
                function.lines.append("{")
                depth += 1
            elif line == "}":
                depth -= 1
                if depth:
                    function.lines.append("}")
                else:
                    function = None
            else:
                first = first if statement else number
                statement += line + " "
                if line.endswith(";"):
                    self.finish(function, re.sub(r"\s+", " ", statement).strip(" ;"), first)
                    statement = ""

    def locate(self, line: str) -> None:
        if match := re.match(r'\.file\s+(\d+)\s+"([^"]*)"', line):
            self.files[match[1]] = Path(match[2]).name
        elif match := re.match(r"\.loc\s+(\d+)\s+(\d+)", line):
            self.location = f"{match[1]}:{match[2]}"

    def begin(self, header: str) -> Function:
        match = HEADER.match(re.sub(r"\s+", " ", header).strip())
        if not match:
            raise ValueError(f"no such function: {header}")
        given = [*split_operands(match[2] or ""), *split_operands(match[4])]
        function = Function(
            match[3], match[1] == "entry", int(match[5] or 1024), [parameter(p) for p in given]
        )
        function.shared = self.shared
        self.functions.append(function)
        return function

    def finish(self, function: Function | None, statement: str, line: int) -> None:
        if not statement:
            return
        if function is None:
            if match := re.match(r"\.extern \.shared .*?(\w+)\[\]", statement):
                self.shared.add(match[1])
            elif not HEADER.match(statement):  # a declaration
                raise ValueError(f"no such statement: {statement}")
        elif statement.startswith("."):
            function.declare(statement)
        else:
            if SEEN.match(statement):
                self.sites.append((line, self.location))
            function.instruction(statement, len(self.sites) - 1, self.location, self.runs)

    def source(self, location: str) -> str:
        file, _, line = location.partition(":")
        return f'"{self.files.get(file, "?")}", {line or 0}'

    def write(self, stem: str, parts: int) -> None:
        sites = [f"{{{line}, {self.source(at)}}}" for line, at in self.sites]
        runs = [
            f"{{{self.source(at)}, {{{', '.join(str(costs[p]) for p in PIPES)}}}}}"
            for at, costs in self.runs
        ]
        name = Path(stem).name
        by_size = sorted(self.functions, key=lambda f: -len(f.lines))
        for part in range(parts):
            out = ['#include "instructions.h"', '#include "profile.h"', "using namespace ptx;"]
            out += ["static const Site sites[] = {", ",\n".join(sites), "};"]
            out += ["static const Run runs[] = {", ",\n".join(runs), "};"]
            out += [f"namespace {name} {{"]
            out += [f"{f.signature()};" for f in self.functions if not f.entry]
            out += [f.text() for f in by_size[part::parts]]
            Path(f"{stem}.{part}.cpp").write_text("\n".join([*out, "}", ""]))


if __name__ == "__main__":
    Module(Path(sys.argv[1]).read_text()).write(sys.argv[2], int(sys.argv[3]))
