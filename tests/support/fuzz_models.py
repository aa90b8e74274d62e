"""Mutates model files at random: each must be read, or refused with one sentence, soon and in little memory.

    PYTHONPATH=python python -m tests.support.fuzz_models --mutations 10000 [--seed 1] [FILE ...]

FILEs are model files to start from; without them small ones are made (.pt and .dpa2, DPA-1 and DPA-2). Some
mutations go through the checksums: the archive or container is written anew around the changed part. What is
accepted is computed with, too. A crash or a hang leaves the file that caused it in the folder of --keep.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import os
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from dpa2md import model_file
from dpa2md.conversion import convert, list_heads
from dpa2md.engine import Engine
from dpa2md.errors import ModelError

from tests.support.checkpoints import dpa1_config, make_tensors, write_model
from tests.support.small_models import small_config, small_tensors

PATIENCE = 30  # seconds until a file counts as a hang; the slowest good one takes a tenth of one
MEMORY = 2 << 30  # bytes that a file of some 100 kB may make the process grow
ATTACK = b"cos\nsystem\n(X\x0e\x00\x00\x00touch sentineltR"
TOKENS = (ATTACK, b"\x80\x02", b"}(", b"K\x01", b"PK\x03\x04", b"PK\x01\x02", b"nan", b"[[[[", b"{")
NUMBERS = (0, 1, -1, 2**7, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four random changes."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(out)
        if size == 0:
            break
        at, length = int(rng.integers(size)), int(rng.integers(1, 64))
        kind = rng.integers(9)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            out[at : at + length] = bytes(min(length, size - at))
        elif kind == 3:
            del out[at : at + length]
        elif kind == 4:
            out[at:at] = rng.bytes(length)
        elif kind == 5:
            source = int(rng.integers(size))
            out[at:at] = out[source : source + length]
        elif kind == 6:
            out[at:at] = TOKENS[rng.integers(len(TOKENS))]
        elif kind == 7:
            width = (1, 2, 4, 8)[rng.integers(4)]
            value = NUMBERS[rng.integers(len(NUMBERS))] % 256**width
            out[at : at + width] = value.to_bytes(width, "little")
        else:
            del out[int(rng.integers(size)) :]
    return bytes(out)


def mutate_inside(data: bytes, rng: np.random.Generator) -> bytes:
    """The same behind the checksums: of one entry of an archive, or of a container's records."""
    if data[:2] == b"PK":
        return _mutate_archive(data, rng)
    if data[:8] == model_file.MAGIC:
        body = mutate(data[32:], rng)
        head = struct.pack("<8sIIQII", data[:8], 1, struct.unpack_from("<I", data, 12)[0],
                           len(body), zlib.crc32(body), 0)  # fmt: skip
        return head + body
    return mutate(data, rng)


def _mutate_archive(data: bytes, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        # half of the time the pickle or the script, which decide over everything else
        chosen = [n for n in names if n.endswith((".pkl", ".py", ".json"))]
        target = chosen[0] if chosen and rng.random() < 0.5 else names[rng.integers(len(names))]
        for name in names:
            content = old.read(name)
            new.writestr(name, mutate(content, rng) if name == target else content)
    return out.getvalue()


def try_file(path: Path, folder: Path) -> str:
    """What became of a file: the kind of its end. Anything unexpected is raised."""
    try:
        heads = list_heads(path)
        output = convert(path, folder / "out.dpa2", head=heads[0] if heads else None)
    except (ModelError, OSError) as error:
        check_sentence(str(error))
        return f"refused by {'the reader' if isinstance(error, ModelError) else 'the system'}"
    try:
        engine = Engine(output, threads=1)
    except ModelError as error:
        check_sentence(str(error))
        return "refused by the core"
    except ValueError as error:
        check_sentence(str(error))
        return "refused by the core"
    types = np.arange(3) % len(engine.elements)
    try:
        parameters = {"fparam": np.zeros(engine.nfparam)} if engine.nfparam else {}
        result = engine.compute(
            np.array([[0, 0, 0], [0.97, 0.1, 0], [-0.2, 0.9, 0.3]]), types, **parameters
        )
    except ValueError as error:
        check_sentence(str(error))
        return "not computed"
    assert np.isfinite(result.energy)
    return "computed"


def check_sentence(text: str) -> None:
    assert text and "\n" not in text and len(text) < 1000, repr(text)


def small_files(folder: Path) -> list[Path]:
    """Models of a few ten kilobytes, and what they are converted to."""
    first = write_model(folder / "dpa1.pt", dpa1_config(), make_tensors(dpa1_config()))
    config = small_config()
    second = write_model(folder / "dpa2.pt", config, small_tensors(config))
    return [first, second, convert(first), convert(second)]


def fuzz(files: list[Path], mutations: int, seed: int, keep: Path) -> Counter[str]:
    """Try `mutations` changed files, in turn from each of `files`; returns how many ended how.

    Raises
    ------
    AssertionError, or whatever exception was not expected, with the file left in `keep`.
    """
    rng = np.random.default_rng(seed)
    contents = [(path, path.read_bytes()) for path in files]
    ends: Counter[str] = Counter()
    for k in range(mutations):
        path, data = contents[k % len(contents)]
        change = mutate_inside if rng.random() < 0.6 else mutate
        candidate = keep / f"candidate{path.suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of names that appear twice
            candidate.write_bytes(change(data, rng))
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            try:
                ends[f"{path.name}: {try_file(candidate, keep)}"] += 1
            except BaseException:
                print(f"mutation {k} of seed {seed}: see {candidate}", file=sys.stderr)
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()
        assert not Path("sentinel").exists(), f"mutation {k} of seed {seed} ran code: {candidate}"
    return ends


def limit_memory() -> None:
    """Let this process grow by MEMORY and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "dpa2md-fuzz")
    args = parser.parse_args()
    args.keep.mkdir(exist_ok=True)
    files = [path.resolve() for path in args.files]
    os.chdir(args.keep)
    limit_memory()
    began = time.monotonic()
    ends = fuzz(files or small_files(args.keep), args.mutations, args.seed, args.keep)
    for name, count in sorted(ends.items()):
        print(f"{count:7d}  {name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.mutations} mutations, {time.monotonic() - began:.0f} s, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
