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
    # as bits
    **dict.fromkeys(("f16", "bf16"), "u16"),
    **dict.fromkeys(("f16x2", "bf16x2", "tf32"), "u32"),
}
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
# Plain arithmetic: result and operands are of the instruction's (last) type.
PLAIN = {
    "abs",
    "add",
    "and",
    "copysign",
    "cos",
    "div",
    "ex2",
    "fma",
    "lg2",
    "mad.hi",
    "mad.lo",
    "max",
    "max.NaN",
    "min",
    "min.NaN",
    "mul",
    "mul.hi",
    "mul.lo",
    "neg",
    "not",
    "or",
    "rcp",
    "rem",
    "rsqrt",
    "sin",
    "sqrt",
    "sub",
    "tanh",
    "xor",
}
# Of two halves in a register, or one.
OF_HALVES = {"add", "sub", "mul", "fma", "min", "max", "abs", "neg"}
HALVES = ("f16", "f16x2", "bf16", "bf16x2")
# Bits of integers: result and operands that count are u32, the others of the instruction's type.
OF_BITS = {
    "bfe": 1,
    "bfi": 2,
    "popc": 1,
    "clz": 1,
    "brev": 1,
    "bfind": 1,  # operands of the type
    "shf": 0,
    "prmt": 0,
    "lop3": 0,
}
ROUNDING = {"rn", "rm", "rz", "rp", "approx", "ftz", "full"}
DIRECTED = {"rm": "FE_DOWNWARD", "rz": "FE_TOWARDZERO", "rp": "FE_UPWARD"}
# cvt's ways to an integer
TO_INTEGER = {"rni": "rounded", "rzi": "truncated", "rmi": "floored", "rpi": "ceiled"}
# Of unsigned integers, as of others.
COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
SPACES = ("param", "local", "global", "shared")


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
        self.targets: dict[str, list[str]] = {}  # of brx, by name

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

    # -- statements

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

    def plain(self, parts: list[str], op: list[str], operands: list[str], kind: str) -> str:
        to, *args = operands
        function, values = "_".join(parts), self.floats(op, args, kind)
        directed = next((DIRECTED[p] for p in op if p in DIRECTED), None)
        if directed:
            arithmetic = f"[](auto... x) {{ return {function}_<{kind}>({kind}(x)...); }}"
            call = f"directed<{kind}>({directed}, {arithmetic}, {values})"
        else:
            call = f"{function}{'_approx' if 'approx' in op else ''}_<{kind}>({values})"
        return self.set(to, f"flushed({call})" if flushes(op, kind) else call)

    def floats(self, op: list[str], args: list[str], kind: str) -> str:
        """Values, with ftz zeros for denormal numbers."""
        values = [self.operand(a, kind) for a in args]
        return (
            ", ".join(f"flushed({v})" for v in values) if flushes(op, kind) else ", ".join(values)
        )

    def bits(self, op: list[str], operands: list[str], kind: str) -> str:
        to, *args = operands
        typed = OF_BITS[op[0]]
        values = [self.operand(a, kind if k < typed else "u32") for k, a in enumerate(args)]
        if ".".join(op[:-1]) not in KNOWN_BITS:
            raise ValueError(f"no such instruction: {'.'.join(op)}")
        return self.set(to, f"{'_'.join(op[:-1])}_<{kind}>({', '.join(values)})")

    def halves(self, op: list[str], operands: list[str]) -> str:
        to, *args = operands
        number = "Brain" if op[-1].startswith("bf") else "Half"
        if {"sat", "relu", "NaN", "ftz", *DIRECTED} & set(op):
            raise ValueError(f"no such instruction: {'.'.join(op)}")
        count = "two" if op[-1].endswith("x2") else "one"
        bits = "u32" if count == "two" else "u16"
        call = f"of_{count}<{number}>([](auto... x) {{ return {op[0]}_exact(x...); }}, {self.values(args, bits)})"
        return self.set(to, call)

    def setp(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        to, a, b, *also = operands
        compare = COMPARISONS.get(op[1], op[1])
        if op[-1] in ("f16", "bf16"):
            number = "Brain" if op[-1] == "bf16" else "Half"
            kind = "double"
            values = ", ".join(f"{number}::value({self.operand(x, 'u16')})" for x in (a, b))
        elif op[-1] in HALVES:
            raise ValueError(f"no such instruction: {'.'.join(op)}")
        else:
            values = self.floats(op, [a, b], kind)
        truth = f"compare_{compare}<{kind}>({values})"
        first, _, second = to.partition("|")
        if not (second or also):
            return self.set(to, truth)
        how = {"and": "&", "or": "|", "xor": "^"}
        combined = f" {how[op[2]]} {self.operand(also[0], 'bool')}" if also else ""
        out = f"bool truth = {truth}, first = truth{combined}, second = !truth{combined};"
        out += self.set(first, "first") + (self.set(second, "second") if second else "")
        return f"{{ {out} }}"

    def cvt(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        target, source, ways = op[-2], op[-1], set(op[1:-2])
        to, *args = operands
        if not ways <= {"rn", "rna", "rz", "ftz", "sat", *TO_INTEGER}:
            raise ValueError(f"no such instruction: {'.'.join(op)}")
        if target in HALVES and source == "f32":  # of two, the first one becomes the upper half
            number = "Brain" if target.startswith("bf") else "Half"
            toward_zero = "true" if "rz" in ways else "false"
            bits = [
                f"{number}::bits({v}, {toward_zero})"
                for v in self.floats(op, args, "float").split(", ")
            ]
            return self.set(to, bits[0] if len(bits) == 1 else f"u32({bits[0]}) << 16 | {bits[1]}")
        if target == "tf32":
            way = next(w for w in ("rna", "rn", "rz") if w in ways)
            return self.set(to, f"tf32_{way}({self.operand(args[0], 'float')})")
        value = self.operand(args[0], kind)
        if source in HALVES:
            value, kind = f"{'Brain' if source == 'bf16' else 'Half'}::value({value})", "double"
        if target == "f16" and ways <= {"rn", "rz"}:
            return self.set(to, f"Half::bits({value}, {'true' if 'rz' in ways else 'false'})")
        if "rz" in ways or "rna" in ways or target in HALVES:
            raise ValueError(f"no such instruction: {'.'.join(op)}")
        if flushes(op, kind):
            value = f"flushed({value})"
        how = next((TO_INTEGER[w] for w in ways if w in TO_INTEGER), "converted")
        if "sat" in ways:
            if target not in ("f32", "f64"):
                raise ValueError(f"no such instruction: {'.'.join(op)}")
            how = "saturated"
        value = f"{how}<{TYPES[target]}, {kind}>({value})"
        return self.set(to, f"flushed({value})" if flushes(op, TYPES[target]) else value)

    def cvta(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        value = self.operand(operands[1], "u64")
        if op[1] == "shared":
            value = f"u64(t.shared) + {value}"
        elif op[1:3] == ["to", "shared"]:
            value = f"{value} - u64(t.shared)"
        return self.set(operands[0], value)

    def isspacep(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        value = self.operand(operands[1], "u64")
        return self.set(operands[0], f"t.in_{op[1].partition('::')[0]}({value})")

    def brx(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        cases = [f"case {k}: goto {label(x)};" for k, x in enumerate(self.targets[operands[1]])]
        return f"switch ({self.operand(operands[0], 'u32')}) {{ {' '.join(cases)} }}"

    def values(self, args: list[str], kind: str) -> str:
        return ", ".join(self.operand(a, kind) for a in args)

    def move(self, operands: list[str], kind: str) -> str:
        to, source = operands
        if to.startswith("{"):  # apart
            parts = split_operands(to.strip("{}"))
            bits = 8 * SIZES[kind] // len(parts)
            sets = [self.set(r, f"u{bits}(bits >> {k * bits})") for k, r in enumerate(parts)]
            return f"{{ {kind} bits = {self.operand(source, kind)}; {' '.join(sets)} }}"
        if source.startswith("{"):  # together
            parts = split_operands(source.strip("{}"))
            bits = 8 * SIZES[kind] // len(parts)
            values = [
                f"{kind}({self.operand(r, f'u{bits}')}) << {k * bits}" for k, r in enumerate(parts)
            ]
            return self.set(to, f"{kind}({' | '.join(values)})")
        return self.set(to, self.operand(source, kind))

    def memory(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        spaces = (p.partition("::")[0] for p in op[1:-1])
        space = next((p for p in spaces if p in SPACES), "generic")
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
        parts = [p for p in op[1:] if p not in ("aligned", "cta")]
        if parts in (["sync"], ["arrive"]):
            number, *count = (self.operand(o, "u32") for o in operands)
            if parts == ["sync"] and operands == ["0"]:
                return f"t.barrier(sites + {site});"
            values = f"{number}, {count[0] if count else 't.ntid'}, {'false' if parts == ['arrive'] else 'true'}"
            return f"t.named_barrier({values}, sites + {site});"
        if parts[0] == "warp":
            return f"t.warp_barrier(sites + {site});"
        to, _, value = operands  # bar.red.or.pred
        if parts[:2] != ["red", "or"]:
            raise ValueError(f"no such instruction: {op}")
        return self.set(to, f"t.any({self.operand(value, 'bool')}, sites + {site})")

    barrier = bar

    def shfl(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        to, a, b, c, mask = operands
        out, _, inside = to.partition("|")
        values = f"{self.operand(a, 'u32')}, {self.operand(b, 'u32')}, {self.operand(c, 'u32')}"
        call = f"t.shuffle_{op[2]}({values}, {self.operand(mask, 'u32')}, &inside, sites + {site})"
        also = self.set(inside, "inside") if inside else ""
        return f"{{ bool inside; {self.set(out, call)} {also} }}"

    def vote(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        to, value, mask = operands
        ballot = (
            f"t.ballot({self.operand(value, 'bool')}, {self.operand(mask, 'u32')}, sites + {site})"
        )
        results = {"ballot": "b", "any": "b != 0", "all": "b == t.mask()"}
        results["uni"] = f"b == 0 || {results['all']}"
        return f"{{ u32 b = {ballot}; {self.set(to, results[op[2]])} }}"

    def match(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        to, value, mask = operands
        to, _, also = to.partition("|")
        compared = self.operand(value, "u64" if kind == "u64" else "u32")
        equal = f"t.equal({compared}, {self.operand(mask, 'u32')}, sites + {site})"
        if op[1] == "any":
            return self.set(to, equal)
        out = f"u32 b = {equal}; {self.set(to, 'b == t.mask() ? b : u32(0)')}"
        return f"{{ {out} {self.set(also, 'b == t.mask()') if also else ''} }}"

    def redux(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        to, value, mask = operands
        if op[2] not in ("add", "min", "max", "and", "or", "xor") or kind == "float":
            raise ValueError(f"no such instruction: {op}")
        values = f"{self.operand(value, 'u32')}, {self.operand(mask, 'u32')}"
        call = f"t.reduce<{kind}>({op[2]}_<{kind}>, {values}, sites + {site})"
        return self.set(to, call)

    def activemask(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        return self.set(operands[0], "t.mask()")  # as if no lane went another way

    def mma(self, op: list[str], operands: list[str], kind: str, site: int) -> str:
        shape, types = op[3], op[6:]
        found = MMA.get((shape, *types))
        if not found or op[4:6] != ["row", "col"]:
            raise ValueError(f"no such instruction: {op}")
        which, of_factors, of_sum = found
        d, a, b, c = (split_operands(o.strip("{}")) for o in operands)
        lists = ", ".join(
            f"{{{self.values(x, k)}}}" for x, k in ((a, of_factors), (b, of_factors), (c, of_sum))
        )
        sets = " ".join(self.set(r, f"m.d[{k}]") for k, r in enumerate(d))
        return f"{{ {which} m{{{lists}}}; t.multiply(&m, sites + {site}); {sets} }}"

    def matrix(self, op: list[str], operands: list[str], site: int) -> str:
        """ldmatrix, stmatrix, movmatrix: 8 x 8 of 16 bits."""
        if "m8n8" not in op or op[-1] != "b16":
            raise ValueError(f"no such instruction: {op}")
        transposed = "true" if "trans" in op else "false"
        if op[0] == "movmatrix":
            to, value = operands
            return self.set(to, f"t.transpose({self.operand(value, 'u32')}, sites + {site})")
        count = next({"x1": 1, "x2": 2, "x4": 4}[p] for p in op if p in ("x1", "x2", "x4"))
        load = op[0] == "ldmatrix"
        registers, address = operands if load else reversed(operands)
        names = split_operands(registers.strip("{}"))
        generic = not any(p.partition("::")[0] == "shared" for p in op)
        arguments = (
            f"{self.address(address, not generic)}, {count}, {transposed}, m, sites + {site}"
        )
        if load:
            sets = " ".join(self.set(r, f"m[{k}]") for k, r in enumerate(names))
            return f"{{ u32 m[4]; t.load_matrices({arguments}); {sets} }}"
        return f"{{ u32 m[4] = {{{self.values(names, 'u32')}}}; t.store_matrices({arguments}); }}"

    def cp_async(self, op: list[str], operands: list[str], site: int) -> str:
        if op[2] == "commit_group":
            return "t.commit_copies();"
        if op[2] in ("wait_group", "wait_all"):
            return f"t.wait_for_copies({operands[0] if op[2] == 'wait_group' else -1}, sites + {site});"
        if op[2] not in ("ca", "cg") or op[3].partition("::")[0] != "shared" or op[4] != "global":
            raise ValueError(f"no such instruction: {op}")
        to, source, bytes, *valid = operands
        if len(valid) > 1:
            raise ValueError(f"no such instruction: {op} {operands}")
        taken = self.operand(valid[0], "u32") if valid else f"{bytes}u"
        return f"t.copy({self.address(to, True)}, {self.address(source)}, {bytes}, {taken}, sites + {site});"

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


def flushes(op: list[str], kind: str) -> bool:
    return "ftz" in op and kind == "float"


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered, without comments."""
    for number, line in enumerate(text.splitlines(), 1):
        yield number, re.sub(r"//.*", "", line).strip()


# Instructions that the machine has something to say about.
SEEN = re.compile(
    r"(@!?%?\w+ )?(ld|st|bar|barrier|shfl|mma|atom|ldmatrix|stmatrix|movmatrix|vote|match|redux|cp)\."
)
METHODS = {
    *("bar", "barrier", "shfl", "mma", "atom", "call", "vote", "match", "redux", "activemask"),
    *("setp", "cvt", "cvta", "isspacep", "brx"),
}
KNOWN_BITS = {
    *("bfe", "bfi", "popc", "clz", "brev", "bfind", "prmt", "lop3"),
    *(f"shf.{side}.{way}" for side in "lr" for way in ("wrap", "clamp")),
}
# Operands' struct, types of its factors and of its sum.
MMA = {
    ("m16n8k8", "f32", "tf32", "tf32", "f32"): ("MmaTf32", "u32", "float"),
    ("m16n8k16", "f32", "f16", "f16", "f32"): ("MmaF16", "u32", "float"),
    ("m8n8k4", "f64", "f64", "f64", "f64"): ("MmaF64", "double", "double"),
}

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
            out = ['#include "instructions.h"', '#include "profile.h"', "using namespace ptx;"]
            out += ["static const Site sites[] = {", ",\n".join(sites), "};"]
            out += ["static const Run runs[] = {", ",\n".join(runs), "};"]
            out += [f"namespace {name} {{"]
            out += [f"{f.signature()};" for f in self.functions if not f.entry]
            out += [f.text() for f in by_size[part::parts]]
            Path(f"{stem}.{part}.cpp").write_text("\n".join([*out, "}", ""]))


if __name__ == "__main__":
    Module(Path(sys.argv[1]).read_text()).write(sys.argv[2], int(sys.argv[3]))
