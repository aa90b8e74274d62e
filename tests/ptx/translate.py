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

from arithmetic import OF_BITS, OF_HALVES, PLAIN, ROUNDING, Arithmetic
from costs import PIPES, cost
from operands import HALVES, TYPES, label, parameter, split_operands
from warps import SEEN, WarpInstructions

# Instructions with a method of their name.
METHODS = {
    *("bar", "barrier", "shfl", "mma", "atom", "call", "vote", "match", "redux", "activemask"),
    *("setp", "cvt", "cvta", "isspacep", "brx"),
}


class Function(Arithmetic, WarpInstructions):
    """One .entry or .func: its C++, statement by statement."""

    def __init__(self, name: str, entry: bool, threads: int, params: list[tuple[str, str, int]]):
        self.params = params  # name, PTX type, bytes
        super().__init__(params)
        self.name, self.entry, self.threads = name, entry, threads
        self.run: Counter[str] | None = None  # costs since the last label or branch
        self.targets: dict[str, list[str]] = {}  # of brx, by name

    def instruction(self, text: str, site: int, location: str, runs: list) -> None:
        guard = ""
        if match := re.match(r"@(!?)%?(\w+)\s+", text):
            guard, text = f"if ({match[1]}{match[2]}) ", text[match.end() :]
        opcode, _, rest = text.partition(" ")
        if self.run is None:
            self.run = Counter()
            runs.append((location, self.run))
            self.lines.append(f"t.visit(runs + {len(runs) - 1});")
        pipe, times = cost(opcode)
        if pipe:
            self.run[pipe] += times
        if opcode.startswith(("bra", "brx", "call", "ret", "exit")):
            self.run = None
        code = self.translated(opcode.split("."), split_operands(rest), site)
        self.lines.append(f"{guard}{{ {code} }}" if guard else code)

    def translated(self, op: list[str], operands: list[str], site: int) -> str:
        name, kind = op[0], TYPES.get(op[-1], "")
        if name in ("ld", "st", "ldu"):
            return self.memory(op, operands, kind, site)
        if name == "bra":
            return f"goto {label(operands[0])};"
        if name == "ret" or (name == "exit" and self.entry):
            return "return;"
        if name in ("membar", "fence"):  # which order no two threads by themselves
            return ";"
        if name == "mov":
            return self.move(operands, kind)
        if name == "selp":
            to, a, b, p = operands
            chosen = (
                f"{self.operand(p, 'bool')} ? {self.operand(a, kind)} : {self.operand(b, kind)}"
            )
            return self.set(to, chosen)
        if name in ("shl", "shr"):
            to, a, n = operands
            return self.set(
                to, f"{name}<{kind}>({self.operand(a, kind)}, {self.operand(n, 'u32')})"
            )
        if op[1:2] == ["wide"]:
            to, a, b, *c = operands
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            product = f"mul_wide<{wide}>({self.values([a, b], kind)})"
            if c:  # mad
                product = f"add_<{wide}>({product}, {self.operand(c[0], wide)})"
            return self.set(to, product)
        if name in OF_BITS:
            return self.bits(op, operands, kind)
        if name in OF_HALVES and op[-1] in HALVES:
            return self.halves(op, operands)
        if name == "cp" and op[1] == "async":
            return self.cp_async(op, operands, site)
        if name in ("ldmatrix", "stmatrix", "movmatrix"):
            return self.matrix(op, operands, site)
        if name in METHODS:
            return getattr(self, name)(op, operands, kind, site)
        parts = [p for p in op[:-1] if p not in ROUNDING]
        if ".".join(parts) in PLAIN:
            return self.plain(parts, op, operands, kind)
        raise ValueError(f"no such instruction: {'.'.join(op)} {operands}")

    def brx(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        cases = [f"case {k}: goto {label(x)};" for k, x in enumerate(self.targets[operands[1]])]
        return f"switch ({self.operand(operands[0], 'u32')}) {{ {' '.join(cases)} }}"

    def call(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        groups = [split_operands(o.strip("()")) if o.startswith("(") else o for o in operands]
        returned = groups.pop(0) if isinstance(groups[0], list) else []
        name, args = groups[0], groups[1] if len(groups) > 1 else []
        return f"{name}({', '.join(['t', *returned, *args])});"

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


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered, without comments."""
    for number, line in enumerate(text.splitlines(), 1):
        yield number, re.sub(r"//.*", "", line).strip()


HEADER = re.compile(
    r"(?:\.visible |\.weak )?\.(entry|func) (?:\(([^)]*)\) )?(\w+) ?\(([^)]*)\)"
    r"(?: \.noreturn)?(?: ?\.(?:max|req)ntid (\d+)(?:, 1, 1)?)?(?: ?\.minnctapersm \d+)? ?$"
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
                continue
            for piece in re.findall(r"[{};]|[^{};]+", line):
                pending = re.sub(r"\s+", " ", statement).strip()
                if piece == "{" and function is None:
                    function, statement, depth = self.begin(pending), "", 1
                elif piece == "{" and not pending:  # a scope; else of a vector
                    function.lines.append("{")
                    depth += 1
                elif piece == "}" and not pending:
                    depth -= 1
                    if depth:
                        function.lines.append("}")
                    else:
                        function = None
                elif piece == ";":
                    self.finish(function, pending, first)
                    statement = ""
                else:
                    first = first if pending else number
                    statement += piece
            statement += " "
            if function and (match := re.fullmatch(r"(\$?\w+):", statement.strip())):
                self.place_label(function, match[1])
                statement = ""

    def place_label(self, function: Function, name: str) -> None:
        function.lines.append(f"{label(name)}:;")
        function.run = None

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
        elif match := re.fullmatch(r"(\$?\w+): \.branchtargets (.*)", statement):
            function.targets[match[1]] = split_operands(match[2])
        elif match := re.match(r"(\$?\w+): ", statement):
            self.place_label(function, match[1])
            self.finish(function, statement[match.end() :], line)
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
            out = ['#include "halves.h"', '#include "profile.h"', "using namespace ptx;"]
            out += ["static const Site sites[] = {", ",\n".join(sites), "};"]
            out += ["static const Run runs[] = {", ",\n".join(runs), "};"]
            out += [f"namespace {name} {{"]
            out += [f"{f.signature()};" for f in self.functions if not f.entry]
            out += [f.text() for f in by_size[part::parts]]
            Path(f"{stem}.{part}.cpp").write_text("\n".join([*out, "}", ""]))


if __name__ == "__main__":
    Module(Path(sys.argv[1]).read_text()).write(sys.argv[2], int(sys.argv[3]))
