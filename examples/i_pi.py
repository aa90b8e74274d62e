"""Path-integral molecular dynamics: i-PI moves the beads, dpa2md computes: python examples/i_pi.py OUT

i-PI (pip install ipi) is started as a program of its own; this process is its client through ASE's
socket calculator. Start the client several times, and the beads are shared among them. LAMMPS as the
client is in docs/lammps.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.calculators.socketio import SocketClient
from ase.io import write
from dpa2md import DPA2Calculator
from dpa2md.structures import equilibrated_water

INPUT = """\
<simulation verbosity="low">
  <output prefix="water">
    <properties stride="1" filename="out">
      [ step, time{{femtosecond}}, conserved{{electronvolt}}, potential{{electronvolt}}, temperature{{kelvin}},
        kinetic_cv{{electronvolt}} ]
    </properties>
  </output>
  <total_steps> {steps} </total_steps>
  <ffsocket name="dpa2" mode="unix"> <address> {address} </address> </ffsocket>
  <system>
    <initialize nbeads="{beads}">
      <file mode="ase" units="angstrom"> water.xyz </file>
      <velocities mode="thermal" units="kelvin"> 300 </velocities>
    </initialize>
    <forces> <force forcefield="dpa2"/> </forces>
    <ensemble> <temperature units="kelvin"> 300 </temperature> </ensemble>
    <motion mode="dynamics">
      <dynamics mode="nvt">
        <timestep units="femtosecond"> 0.25 </timestep>
        <thermostat mode="pile_g"> <tau units="femtosecond"> 25 </tau> </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""


def run(folder: Path, steps: int, beads: int) -> np.ndarray:
    """Runs i-PI in `folder`; returns the rows (steps + 1, 6) of its properties."""
    atoms = equilibrated_water()
    write(folder / "water.xyz", atoms, format="extxyz")
    address = f"dpa2-{os.getpid()}"
    (folder / "input.xml").write_text(INPUT.format(steps=steps, beads=beads, address=address))
    program = Path(sys.executable).parent / "i-pi"
    with (folder / "ipi.log").open("w") as log:
        server = subprocess.Popen([program, "input.xml"], cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(Path(f"/tmp/ipi_{address}"), server, folder / "ipi.log")
            atoms.calc = DPA2Calculator("water")
            SocketClient(unixsocket=address).run(atoms, use_stress=True)
            server.wait(timeout=60)
        finally:
            server.kill()
    return np.loadtxt(folder / "water.out")


def wait_for(socket: Path, server: subprocess.Popen, log: Path) -> None:
    """Until i-PI listens."""
    while not socket.exists():
        if server.poll() is not None:
            sys.exit(f"i-PI stopped before it listened; its last words are in {log}.")
        time.sleep(0.1)


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Runs the example; returns the rows of i-PI's properties."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--beads", type=int, default=4)
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = run(args.folder, args.steps, args.beads)
    print("step  time (fs)  conserved (eV)  potential (eV)  temperature (K)  quantum kinetic (eV)")
    for row in rows:
        print("{:4.0f}  {:9.2f}  {:14.4f}  {:14.4f}  {:15.1f}  {:20.3f}".format(*row))
    return rows


if __name__ == "__main__":
    main()
