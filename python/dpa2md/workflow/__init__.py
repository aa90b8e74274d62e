"""From a large model to a small one: rounds of exploring, selecting, labelling and training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .driver import Result
    from .journal import Report

__all__ = ["distill", "finetune_loop"]


def distill(
    settings: Mapping[str, Any] | str | os.PathLike,
    folder: str | os.PathLike = "run",
    *,
    report: Report | None = None,
    retry_failed: bool = False,
) -> Result:
    """Distil a small student from a large teacher, or go on with it.

    Parameters
    ----------
    settings
        The keys of distill.yaml, or that file.
    folder
        Of the run. The same call goes on where an earlier one stopped, however it ended.
    report
        Called with a `journal.Progress` after every event.
    retry_failed
        Start jobs anew that were set aside; what follows from them runs again, too.

    Returns
    -------
    Result
        The student, the report and what came of every round.

    Raises
    ------
    InputError, ModelError
        When the settings or the files that they name can't be used; nothing has started then.
    RunError
        When no student can be made, or another process works in the folder.
    OSError
        When a file can't be read or written.
    """
    from .driver import run
    from .settings import Kind

    return run(settings, Kind.DISTILL, folder, report, retry_failed)


def finetune_loop(
    settings: Mapping[str, Any] | str | os.PathLike,
    folder: str | os.PathLike = "run",
    *,
    report: Report | None = None,
    retry_failed: bool = False,
) -> Result:
    """Fine-tune a pretrained model on labels of new frames that it finds itself, or go on with it.

    Parameters
    ----------
    settings
        The keys of loop.yaml, or that file.
    folder, report, retry_failed
        As of `distill`.

    Returns
    -------
    Result
        The tuned model, the report and what came of every round.

    Raises
    ------
    InputError, ModelError, RunError, OSError
        As `distill`.
    """
    from .driver import run
    from .settings import Kind

    return run(settings, Kind.FINETUNE, folder, report, retry_failed)
