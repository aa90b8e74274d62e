"""Instructions of PTX whose result depends on a thread's registers alone. For translate.py."""

from __future__ import annotations

from operands import HALVES, SIZES, TYPES, Operands, flushes, split_operands

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
KNOWN_BITS = {
    *("bfe", "bfi", "popc", "clz", "brev", "bfind", "prmt", "lop3"),
    *(f"shf.{side}.{way}" for side in "lr" for way in ("wrap", "clamp")),
}


class Arithmetic(Operands):
    """Templates of instructions.h and halves.h, one for each instruction."""

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
