"""What ``dpa2md doctor`` looks at.

Nothing here may crash or hang: what could do so (the compiled core, drivers, ``lmp``) is asked in
processes of their own, and each probe is guarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import installation, lammps, machine
from .finding import Finding

__all__ = ["Finding", "Probe", "default_probes", "examine"]

Probe = Callable[[], Iterator[Finding]]


def examine(probes: dict[str, Probe] | None = None) -> Iterator[Finding]:
    """All findings, one by one; a probe that fails gives a problem and the others go on."""
    for topic, probe in (default_probes() if probes is None else probes).items():
        try:
            yield from probe()
        except Exception as error:  # noqa: BLE001
            text = f"this check failed itself ({type(error).__name__}: {error})"
            yield Finding(topic, "problem", text, "report this, please")


def default_probes() -> dict[str, Probe]:
    """What is looked at, in the order of the report."""
    return {
        "package": installation.probe_package,
        "core": installation.probe_core,
        "threads": machine.probe_threads,
        "memory": machine.probe_memory,
        "LAMMPS": lammps.probe_lammps,
        "optional": installation.probe_optional,
    }
