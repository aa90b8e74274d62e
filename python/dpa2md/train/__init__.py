"""Training of models in the compiled core, from DeePMD-kit's own input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import Settings
    from .trainer import Callback

__all__ = ["train"]


def train(
    settings: Settings | Mapping[str, Any] | str | os.PathLike,
    *,
    restart: str | os.PathLike | None = None,
    init_model: str | os.PathLike | None = None,
    finetune: str | os.PathLike | None = None,
    head: str | None = None,
    threads: int = 0,
    callback: Callback | None = None,
) -> Path:
    """Train a model.

    Ctrl-C ends it after a step, with a checkpoint. Processes that mpirun has started train together
    and get the same path; see `ranks.Ranks.together` for how errors end them.

    Parameters
    ----------
    settings
        DeePMD-kit's input: its file, what is in it, or what `read_settings` made of it. Files in
        it are relative to the working directory, to which curve and checkpoints are written.
    restart
        A checkpoint of this training, which goes on with the next step.
    init_model
        A model of the same shape, whose parameters the training starts with.
    finetune
        The same, where the energies of the elements are fitted to the new data before.
    head
        Which head of a multi-task model is fine-tuned; ``RANDOM``: with a new fitting net. Several
        tasks have ``finetune_head`` in the input instead.
    threads
        0: one for each processor. Sums are in the same order for equal numbers of threads.
    callback
        Called with a `trainer.Step` after every step, on the first rank.

    Returns
    -------
    Path
        The last checkpoint, a `.pt` file that `Engine`, `convert` and DeePMD-kit read.

    Raises
    ------
    InputError
        When input or data can't be used; nothing has started then.
    ModelError
        When a model that was given can't be trained.
    RunError
        When a loss isn't finite.
    OSError
        When a file can't be read or written.
    """
    from .interrupt import ending_on_signals
    from .preparation import Start
    from .ranks import started_ranks
    from .settings import Settings, read_settings, settings_of
    from .trainer import Trainer

    ranks = started_ranks()
    with ranks.together():
        if isinstance(settings, Mapping):
            settings = settings_of(dict(settings))
        elif not isinstance(settings, Settings):
            settings = read_settings(settings)
    first, second, third = (
        None if file is None else os.fspath(file) for file in (restart, init_model, finetune)
    )
    trainer = Trainer(settings, Start(first, second, third, head), threads, ranks)
    with ending_on_signals(trainer.stop):
        return trainer.run(callback)
