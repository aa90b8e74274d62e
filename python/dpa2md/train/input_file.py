"""Files of settings: JSON or YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError

YAML = (".yaml", ".yml")


def read_input(path: Path, meant: str) -> Any:
    """What is in a file of settings; YAML by the end of its name, otherwise JSON.

    Parameters
    ----------
    meant
        The file that should have been given, for messages, as in ``DeePMD-kit's input.json``.

    Raises
    ------
    InputError
        When it can't be read, or YAML is read without PyYAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is no text; give {meant}.") from None
    except OSError as error:
        raise InputError(f"{path}: the input can't be read ({error.strerror}).") from None
    if path.suffix in YAML:
        return _yaml(text, path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is no JSON ({error}).") from None


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise InputError(f"{path}: reading YAML needs PyYAML; install pyyaml.") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: this is no YAML ({' '.join(str(error).split())}).") from None
