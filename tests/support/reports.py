"""What the tests of reports share: frames with labels, and a page taken apart."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from dpa2md import DPA2Calculator
from dpa2md.structures import water_box

VOID = {"meta", "img", "br", "hr", "link"}


def labelled_frames(path: Path, count: int = 6) -> list[Atoms]:
    """Rattled water in two groups, with the model's numbers and known noise as labels; written to `path`."""
    calculator = DPA2Calculator("water", precision="float64", threads=1)
    rng = np.random.default_rng(5)
    frames = []
    for k in range(count):
        atoms = water_box(8 + k % 2, seed=k)
        atoms.rattle(0.02, seed=k)
        atoms.calc = calculator
        energy, forces, stress = (
            atoms.get_potential_energy(),
            atoms.get_forces() + rng.normal(0, 0.05, (len(atoms), 3)),
            atoms.get_stress() + rng.normal(0, 0.001, 6),
        )
        atoms.info["config_type"] = ["cold", "hot & wet"][k % 2]
        labels = {"energy": energy + 0.01 * k * len(atoms), "forces": forces, "stress": stress}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    write(path, frames)
    return frames


class Page(HTMLParser):
    """A page: what is in its tables, and what is wrong with it."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self._row: list[str] = []
        self._caption = ""
        self.feed(text)
        self.close()
        self.wrong += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list) -> None:
        named = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [named["id"]] if "id" in named else []
        for name in ("src", "href", "srcset", "data", "action"):
            value = named.get(name)
            if value is not None and not value.startswith(("#", "data:")):
                self.wrong.append(f"{tag} needs {value}")
        self.links += [named["href"]] if "href" in named else []
        if tag == "img":
            self.images.append(named)
        if tag in ("script", "link", "iframe", "object"):
            self.wrong.append(f"there is a {tag}")
        if tag == "tr":
            self._row = []
        if tag in ("td", "th"):
            self._row.append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes another tag")
        if tag == "caption":
            self.tables[self._caption] = []
        if tag == "tr":
            self.tables[self._caption].append(self._row)
        if tag == "table":
            self._caption = ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "caption":
            self._caption += data
        if self.open and self.open[-1] in ("td", "th"):
            self._row[-1] += data

    def row(self, caption: str, head: str) -> list[str]:
        """The cells of a row behind its head."""
        return next(row[1:] for row in self.tables[caption] if row[0] == head)
