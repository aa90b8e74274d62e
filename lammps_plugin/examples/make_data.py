"""Writes water.data: 64 molecules of liquid water at 300 K, O is type 1 and H is type 2."""

from pathlib import Path

from dpa2md.structures import equilibrated_water

atoms = equilibrated_water()
symbols = atoms.get_chemical_symbols()
side = atoms.cell[0, 0]
lines = ["64 molecules of liquid water, angstrom", "", f"{len(atoms)} atoms", "2 atom types", ""]
lines += [f"0 {side:.6f} {a}lo {a}hi" for a in "xyz"]
lines += ["", "Masses", "", "1 15.999  # O", "2 1.008   # H", "", "Atoms # atomic", ""]
for i, (symbol, x) in enumerate(zip(symbols, atoms.get_positions(wrap=True), strict=True)):
    lines.append(f"{i + 1} {1 if symbol == 'O' else 2} {x[0]:.5f} {x[1]:.5f} {x[2]:.5f}")
Path(__file__).with_name("water.data").write_text("\n".join(lines) + "\n")
