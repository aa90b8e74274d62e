"""The options of ``dpa2md md`` that say how to run, and the settings that they become."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from ..errors import RunError

if TYPE_CHECKING:
    from ..dynamics import Settings


def add_settings(group: argparse._ArgumentGroup) -> None:
    """Add the options; those that are not given are None, so that the others are known."""
    add = group.add_argument
    add("--ensemble", choices=["nve", "nvt", "npt"], help="default: nvt")
    add("--temperature", type=float, metavar="K", help="default: 300")
    add(
        "--temperature-end",
        type=float,
        metavar="K",
        help="a ramp from --temperature to this one at the last step",
    )
    add("--pressure", type=float, metavar="BAR", help="for npt (default: 1)")
    add("--pressure-end", type=float, metavar="BAR", help="a ramp from --pressure to this one")
    add("--timestep", type=float, metavar="FS", help="default: 0.5")
    add("--steps", type=int, metavar="N", help="up to this step (default: 1000)")
    add(
        "--thermostat",
        choices=["langevin", "bussi", "nose-hoover"],
        help="for nvt (default: langevin)",
    )
    add(
        "--barostat",
        choices=["mtk", "berendsen"],
        help="for npt (default: mtk where ASE has it)",
    )
    add(
        "--cell-change",
        choices=["isotropic", "anisotropic", "full"],
        help="for npt with mtk: volume; lengths; lengths and angles (default: isotropic)",
    )
    add("--friction", type=float, metavar="1/PS", help="of langevin (default: 1)")
    add(
        "--taut",
        type=float,
        metavar="FS",
        help="time constant of the other thermostats (default: 100)",
    )
    add("--taup", type=float, metavar="FS", help="time constant of the barostat (default: 1000)")
    add(
        "--compressibility",
        type=float,
        metavar="1/BAR",
        help="for berendsen (default: water's, 4.57e-5)",
    )
    add("--interval", type=int, metavar="N", help="steps between rows and frames (default: 100)")
    add(
        "--checkpoint-interval",
        type=int,
        metavar="N",
        help="steps between checkpoints (default: as --interval)",
    )
    add(
        "--max-temperature",
        type=float,
        metavar="K",
        help="stop above it (default: 10 times the highest, at least 5000)",
    )
    add("--seed", type=int, help="of velocities and thermostat (default: 1)")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that a command line asks for.

    Raises
    ------
    RunError
        When a number makes no sense, or an option would be of no account.
    """
    from ..dynamics import Settings
    from ..integrators import default_barostat

    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    settings = Settings(**{"barostat": default_barostat(), **given})
    how = {"nve": "", "nvt": f" with {settings.thermostat}", "npt": f" with {settings.barostat}"}
    for name in sorted(settings.idle() & given.keys()):
        option, way = name.replace("_", "-"), settings.ensemble + how[settings.ensemble]
        raise RunError(f"{way} takes no --{option}: leave it out.")
    if settings.ensemble == "npt" and settings.barostat == "berendsen" and not args.barostat:
        print(
            "The installed ASE has no MTK barostat: taking Berendsen's, whose fluctuations "
            "are too small; update ase for the right ones.",
            file=sys.stderr,
        )
    return settings
