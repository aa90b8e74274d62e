"""Instructions of PTX that the machine (machine.h) has something to say about: memory, barriers, and what the
lanes of a warp do together. For translate.py.
"""

from __future__ import annotations

import re

from operands import SIZES, Operands, split_operands

SPACES = ("param", "local", "global", "shared")
# Instructions that the machine has something to say about.
SEEN = re.compile(
    r"(@!?%?\w+ )?(ld|st|bar|barrier|shfl|mma|atom|ldmatrix|stmatrix|movmatrix|vote|match|redux|cp)\."
)
# Operands' struct, types of its factors and of its sum.
MMA = {
    ("m16n8k8", "f32", "tf32", "tf32", "f32"): ("MmaTf32", "u32", "float"),
    ("m16n8k16", "f32", "f16", "f16", "f32"): ("MmaF16", "u32", "float"),
    ("m8n8k4", "f64", "f64", "f64", "f64"): ("MmaF64", "double", "double"),
}


class WarpInstructions(Operands):
    """Each with the number of its place in the source."""

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
