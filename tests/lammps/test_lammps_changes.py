"""What LAMMPS changes between two neighbour lists, and atoms that it wants out of the energy."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2md.shipped import DEFAULT_MODEL

from tests.support.lammps_runs import (
    AFTER,
    ELEMENTS,
    MOTION,
    REPORT,
    assert_stops,
    calculator,
    compare,
    preamble,
    read_report,
    run,
    single_point,
    start,
    write_data,
)
from tests.support.small_models import crystal, small_model

pytestmark = pytest.mark.usefixtures("lammps")

# ---- types

SWAPS = """
units metal
lattice sc 4.3
region box block 0 6 0 6 0 6
create_box 2 box
create_atoms 1 box
set group all type/fraction 2 0.5 1234
mass 1 15.999
mass 2 1.008
PAIR
LISTS
fix mc all sgcmc 1 0.1 1.0 0.0 randseed 99 serial
thermo_style custom step pe f_mc[1] f_mc[2]
thermo 1
run 2
variable before equal $(pe:%.17g)
variable counts string "$(f_mc[1]) $(f_mc[2])"
unfix mc
thermo_style custom step pe
run 0
print "${before} $(pe:%.17g) ${counts}" file found
"""
PAIR = f"pair_style dpa2 {DEFAULT_MODEL} precision float64\npair_coeff * * O H"
NEW_LISTS = "neigh_modify every 1 delay 0 check no"


def swaps(folder, pair: str, lists: str) -> tuple[float, float, list[str]]:
    """Energies that a Monte Carlo run reports and that a new list gives, and its counts of swaps."""
    run(folder, SWAPS.replace("PAIR", pair).replace("LISTS", lists))
    reported, anew, *counts = (folder / "found").read_text().split()
    return float(reported), float(anew), counts


def test_types_that_change_while_the_list_stays(tmp_path):
    """fix sgcmc changes types after the list was made. With new lists at every step it can't go wrong."""
    reported, anew, counts = swaps(tmp_path, PAIR, "")
    expected, _, expected_counts = swaps(tmp_path, PAIR, NEW_LISTS)
    assert reported == pytest.approx(anew, abs=1e-7)  # other orders of sums of 3e4 eV
    assert reported == pytest.approx(expected, abs=1e-7)
    assert counts == expected_counts
    assert all(
        float(count) > 0 for count in counts
    )  # at 1 K: some lower the energy, and some don't


def test_types_that_the_list_does_not_have(tmp_path):
    """hybrid's lists hold the atoms of a style's own types."""
    pair = f"""
pair_style hybrid dpa2 {DEFAULT_MODEL} zero 6.0
pair_coeff * * dpa2 O NULL
pair_coeff * 2 zero"""
    script = SWAPS.replace("PAIR", pair).replace("LISTS", "")
    assert_stops_in_run(start(tmp_path, script), "has become a O, but LAMMPS's list")


def assert_stops_in_run(done, sentence: str) -> None:
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr


# ---- atoms that LAMMPS excludes

OUT = {
    "group": "group out id 3 7 8\nneigh_modify exclude group out all",
    "group, the other way": "group out id 3 7 8\nneigh_modify exclude group all out",
    "include": "group in subtract all out\natom_modify first in\nneigh_modify include in",
    "type": "\n".join(f"neigh_modify exclude type {t} 3" for t in (1, 2, 3)),
}


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("way", OUT)
def test_excluded_atoms_are_absent(tmp_path, model, way, ranks, newton):
    atoms = crystal()
    out = np.zeros(len(atoms), dtype=bool)
    if way == "type":
        out = np.array(atoms.get_chemical_symbols()) == "Si"
    else:
        out[[2, 6, 7]] = True
    line = OUT[way] if way != "include" else "group out id 3 7 8\n" + OUT[way]
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, model, newton=newton) + line + REPORT + "run 0\n" + AFTER
    output = run(tmp_path, script, ranks)
    found = read_report(tmp_path, atoms.get_volume())
    assert not found.forces[out].any()
    assert not found.energies[out].any()
    assert not found.virials[out].any()
    for name in ("forces", "energies", "virials"):
        setattr(found, name, getattr(found, name)[~out])
    compare(found, atoms[~out], calculator(model))
    assert "takes neighbours away" not in output


def test_pairs_that_are_excluded_alone_are_told(tmp_path, model):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = preamble(crystal(), ELEMENTS, model)
    for line in ("type 1 2", "group g g", "molecule/intra all"):
        style = "atom_style full" if "molecule" in line else ""
        write_data(tmp_path / "data.test", crystal(), ELEMENTS, "full" if style else "atomic")
        script = preamble(crystal(), ELEMENTS, model, before=style)
        script += "special_bonds lj 1 1 1\n" if style else ""
        output = run(
            tmp_path, script + f"group g id 1 2 3\nneigh_modify exclude {line}\nrun 0\n", 2
        )
        assert output.count("takes neighbours away") == 1, line


# One atom, or one molecule, alone in a large box; a second one gains as much as it costs to take it away.
# The chemical potential lies half way, thousands of kT from both: all insertions are accepted and no deletion.
GCMC = f"""
units metal
atom_style STYLE
region box block 0 30 0 30 0 30
create_box 2 box
mass 1 15.999
mass 2 1.008
pair_style dpa2 {DEFAULT_MODEL} precision float64
pair_coeff * * O H
special_bonds lj/coul 1 1 1
molecule water water.mol
create_atoms CREATE
run 0
variable one equal $(pe)
variable mu equal MU
fix mc all gcmc 1 20 0 TYPE 4711 3000 ${{mu}} 0.0 full_energy overlap_cutoff 1.5 KEYWORDS
run 2
print "$(f_mc[3]) $(f_mc[4]) $(f_mc[5]) $(f_mc[6])" file counts
"""
MOLECULE = """water

3 atoms

Coords

1 0.0 0.0 0.0
2 0.757 0.586 0.0
3 -0.757 0.586 0.0

Types

1 1
2 2
3 2

Charges

1 0.0
2 0.0
3 0.0
"""


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("what", ["atoms", "molecules"])
def test_grand_canonical_monte_carlo(tmp_path, what, ranks):
    """A deletion is tried with the atom still in LAMMPS's arrays, excluded against all."""
    (tmp_path / "water.mol").write_text(MOLECULE)
    if what == "atoms":
        words = {
            "STYLE": "atomic",
            "CREATE": "1 single 5 5 5",
            "MU": "$(v_one/2)",
            "TYPE": "1",
            "KEYWORDS": "",
        }
    else:  # the energy of a molecule is taken out of both moves: mu alone decides
        words = {
            "STYLE": "full",
            "CREATE": "0 single 5 5 5 mol water 815",
            "MU": "10",
            "TYPE": "0",
            "KEYWORDS": "mol water intra_energy ${one}",
        }
    script = GCMC
    for word, text in words.items():
        script = script.replace(word, text)
    output = run(tmp_path, script, ranks)
    tried_in, accepted_in, tried_out, accepted_out = map(
        float, (tmp_path / "counts").read_text().split()
    )
    assert tried_in > 5
    assert tried_out > 5
    assert (accepted_in, accepted_out) == (tried_in, 0)
    assert "takes neighbours away" not in output


def test_ions_in_and_out(tmp_path):
    """fix charge/regulation deletes as fix gcmc does: a pair of ions is worth some 280 eV, a thousand kT."""
    script = f"""
units metal
atom_style charge
region box block 0 30 0 30 0 30
create_box 2 box
mass 1 15.999
mass 2 1.008
pair_style dpa2 {DEFAULT_MODEL} precision float64
pair_coeff * * O H
create_atoms 1 single 5 5 5
create_atoms 2 single 20 20 20
set type 1 charge -1
set type 2 charge 1
fix mc all charge/regulation 2 1 pIp 1 pIm 1 lunit_nm 0.1 nevery 1 nmc 40 seed 4711 temp 3000
run 2
print "$(f_mc[1]) $(f_mc[2]) $(f_mc[7]) $(f_mc[8])" file counts
"""
    run(tmp_path, script)
    tried, accepted, cations, anions = map(float, (tmp_path / "counts").read_text().split())
    assert cations - 1 == anions - 1 == accepted > 5  # one pair was there: only insertions
    assert tried - accepted > 5


# ---- a scale, and parameters from fixes


@pytest.mark.parametrize("ranks", [1, 2])
def test_fix_adapt_scales(tmp_path, model, ranks):
    """As of pair_style deepmd: energies, forces and virials times a number."""
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    base = preamble(atoms, ELEMENTS, model)
    script = base + "variable s equal 0.25\nfix a all adapt 1 pair dpa2 scale * * v_s\n"
    run(tmp_path, script + REPORT + "run 0\n" + AFTER, ranks)
    found = read_report(tmp_path, atoms.get_volume())
    for name in ("energy", "virial", "forces", "energies", "virials", "centroids"):
        setattr(found, name, getattr(found, name) * 4)  # a power of two: exact
    compare(found, atoms, calculator(model))

    script = base + "variable s equal 0.25\nfix a all adapt 1 pair dpa2 scale 1 2 v_s\nrun 0\n"
    assert_stops(start(tmp_path, script, ranks), "scale differs between atom types")


@pytest.mark.parametrize("source", ["p", "p 2"])
def test_frame_parameters_from_a_fix(tmp_path, source):
    """Its scalar, or a part of its vector; fix ave/time has them after a first run."""
    path = small_model(tmp_path, numb_fparam=2)
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    values = "v_a" if source == "p" else "v_b v_a v_c"
    script = preamble(atoms, ELEMENTS, path, keywords=f"fparam_from_fix {source}")
    script += f"""
variable a equal 0.3
variable b equal 7
variable c equal -0.4
fix p all ave/time 1 1 1 {values}
run 0
"""
    run(tmp_path, script + REPORT + "run 0\n" + AFTER)
    fparam = [0.3, 0.3] if source == "p" else [0.3, -0.4]
    compare(read_report(tmp_path, atoms.get_volume()), atoms, calculator(path, fparam=fparam))


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ("fparam_from_fix none", "names the fix none, which does not exist"),
        ("fparam_from_fix v", "gives no scalar: name an entry of its vector after the ID"),
        ("fparam_from_fix v 2", "does not give a vector of 3 numbers or more"),
        ("fparam_from_fix v 0", "needs a whole number of at least 1"),
        ("fparam_from_fix v fparam 1 2", "exclude each other"),
    ],
)
def test_fixes_that_give_no_frame_parameters(tmp_path, keywords, sentence):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    path = small_model(tmp_path, numb_fparam=2)
    script = preamble(crystal(), ELEMENTS, path, keywords=keywords)
    script += "variable a equal 1\nfix v all ave/time 1 1 1 v_a v_a\nrun 0\n"
    assert_stops(start(tmp_path, script, 2), sentence)


def test_the_shipped_model_by_name(tmp_path):
    atoms = crystal()
    atoms = atoms[[symbol != "Si" for symbol in atoms.get_chemical_symbols()]]
    found = single_point(tmp_path, atoms, ["O", "H"], "water", keywords="precision float64")
    compare(found, atoms, calculator(DEFAULT_MODEL))


# ---- one line of model deviations a step, and a file for every replica


def committee(folder) -> str:
    return f"{small_model(folder)} {small_model(folder, scale=290.0)}"


DEVIATION = MOTION + "fix 1 all nve\n"


def steps_of(path) -> list[int]:
    return np.loadtxt(path, ndmin=2)[:, 0].astype(int).tolist()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_line_is_of_a_step(tmp_path, ranks):
    """Monte Carlo tries several structures in a step; the line is of the one that dump shows."""
    from ase import Atoms
    from dpa2md import ModelDeviation

    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, committee(tmp_path), keywords="out_freq 2") + DEVIATION
    script += """
mass * 20
fix mc all atom/swap 1 3 29494 30000.0 ke no types 1 2
dump d all custom 2 swaps.dump id type x y z
dump_modify d sort id format float %.17g
run 4
run 2
"""
    run(tmp_path, script, ranks)
    table = np.loadtxt(tmp_path / "model_devi.out")
    assert table[:, 0].tolist() == [0, 2, 4, 6]
    frames = (tmp_path / "swaps.dump").read_text().split("ITEM: ATOMS ")[1:]
    frames = [[row.split() for row in f.split("ITEM:")[0].splitlines()[1:]] for f in frames]
    paths = committee(tmp_path).split()
    devi = ModelDeviation([calculator(path) for path in paths])
    numbers = set()
    for row, frame in zip(table, frames, strict=True):
        shown = np.array(frame, dtype=float)
        symbols = [ELEMENTS[int(t) - 1] for t in shown[:, 1]]
        numbers.add(tuple(symbols))
        structure = Atoms(symbols, shown[:, 2:], cell=atoms.cell, pbc=True, calculator=devi)
        structure.get_forces()
        expected = [devi.results[f"{k}_devi_f"] for k in ("max", "min", "avg")]
        assert row[4:] == pytest.approx(expected, rel=1e-5)  # six decimals in the file
    assert len(numbers) > 1  # a swap was accepted


def test_the_file_is_continued(tmp_path):
    """A restart evaluates its first step again, and a killed run may leave a part of a line."""
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    models = committee(tmp_path)
    script = preamble(crystal(), ELEMENTS, models, keywords="out_freq 2 atomic") + DEVIATION
    run(tmp_path, script + "run 4\nwrite_restart half.restart\n")
    before = (tmp_path / "model_devi.out").read_text()
    pair = f"pair_style dpa2 {models} out_freq 2 atomic\npair_coeff * * O H Si\n"
    after = "read_restart half.restart\n" + pair + "fix 1 all nve\nrun 4\n"
    for rest in ("", "           5    1.2345"):
        (tmp_path / "model_devi.out").write_text(before + rest)
        run(tmp_path, after)
        text = (tmp_path / "model_devi.out").read_text()
        assert steps_of(tmp_path / "model_devi.out") == [0, 2, 4, 6, 8]
        assert text.startswith("".join(before.splitlines(True)[:-1]))


def test_replicas_have_files_of_their_own(tmp_path):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    options = ("-partition", "2x1")
    script = "variable t world 1 2\n" + preamble(
        crystal(), ELEMENTS, committee(tmp_path), keywords="out_freq 1 FILE"
    )
    script += (
        MOTION.replace("create 300", "create ${t}00") + "fix 1 all nve\ncompute d all pair dpa2\n"
    )
    script += 'variable w equal c_d[4]\nfix p all print 1 "$(step) $(v_w:%.17g)" file seen.$t title ""\nrun 3\n'
    run(tmp_path, script.replace("FILE", ""), 2, *options)
    tables = [np.loadtxt(tmp_path / f"model_devi.out.{k}") for k in (0, 1)]
    for k, table in enumerate(tables):
        seen = np.loadtxt(tmp_path / f"seen.{k + 1}")
        assert table[:, [0, 4]] == pytest.approx(seen, rel=1e-5)
    assert not np.array_equal(*tables)

    done = start(tmp_path, script.replace("FILE", "out_file one.out"), 2, *options)
    screens = "".join((tmp_path / f"screen.{k}").read_text() for k in (0, 1))
    assert done.returncode != 0
    assert (
        "is being written by another pair style or process" in done.stdout + done.stderr + screens
    )
