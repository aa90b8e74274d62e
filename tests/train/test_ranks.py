"""Several processes that train together, started by mpirun: same numbers, files once, no hang."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2md.errors import InputError
from dpa2md.train import train
from dpa2md.train.checkpoint import read_state
from dpa2md.train.curve import read_curve
from dpa2md.train.preparation import Start
from dpa2md.train.ranks import ALONE, Ranks, started_ranks
from dpa2md.train.schedule import read_schedule
from dpa2md.train.settings import settings_of
from dpa2md.train.trainer import Trainer

from tests.support.mpi import require_mpirun
from tests.support.tiny_training import double, repelling, single, write_anew

LIMIT = 120  # seconds; a run takes two, on a busy machine ten, and a hang takes for ever


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mpirun() -> str:
    return require_mpirun()


def start(mpirun: str, *command: str, ranks: int = 2) -> subprocess.CompletedProcess:
    """Run Python with arguments on several ranks, one thread each."""
    began = time.monotonic()
    done = subprocess.run(
        [mpirun, "-n", str(ranks), sys.executable, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert time.monotonic() - began < LIMIT
    return done


def run(mpirun: str, data: dict[str, Any], *options: str, ranks: int = 2) -> str:
    """Train on several ranks with the command; returns what it printed."""
    Path("input.json").write_text(json.dumps(data))
    done = start(mpirun, "-m", "dpa2md", "train", "input.json", *options, ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def vectors(path: str | Path, data: dict[str, Any]) -> dict[str, np.ndarray]:
    settings = settings_of(data)
    state = read_state(path, settings.optimizer, settings.multi_task)
    return {"vector": state.vector, "mean": state.adam.mean, "square": state.adam.square}


def assert_same_bits(one: str | Path, other: str | Path, data: dict[str, Any]) -> None:
    first, second = vectors(one, data), vectors(other, data)
    assert np.abs(first["square"]).max() > 0
    for name, values in first.items():
        assert values.tobytes() == second[name].tobytes(), name


def in_double_precision(data: dict[str, Any]) -> dict[str, Any]:
    for part in ("descriptor", "fitting_net"):
        data["model"][part] = data["model"][part] | {"precision": "float64"}
    return data


# ---- numbers


def test_two_ranks_with_one_frame_are_one(folder, mpirun):
    """The mean of two equal gradients is that gradient, to the last bit."""
    data = single(folder, numb_steps=10, save_ckpt="a", disp_file="a.out", gradient_max_norm=5.0)
    write_anew(folder / "data", repelling(1))
    train(data, threads=1)
    data["training"] |= {"save_ckpt": "b", "disp_file": "b.out"}
    run(mpirun, data)
    assert_same_bits("a-10.pt", "b-10.pt", data)
    assert Path("a.out").read_bytes() == Path("b.out").read_bytes()


@pytest.mark.parametrize(("ranks", "longest"), [(2, 0.0), (4, 0.1)])
def test_ranks_share_a_batch(folder, mpirun, ranks, longest):
    """A loss is the mean over frames of equal size: N ranks with a frame each are one with N frames."""
    data = in_double_precision(single(folder, numb_steps=3, save_freq=1, validation_data=None))
    data["training"]["training_data"]["batch_size"] = ranks
    data["training"] |= {"save_ckpt": "a", "gradient_max_norm": longest}
    train(data, threads=1)
    data["training"]["training_data"]["batch_size"] = 1
    data["training"]["save_ckpt"] = "b"
    run(mpirun, data, ranks=ranks)
    for step in (1, 2, 3):
        one, several = vectors(f"a-{step}.pt", data), vectors(f"b-{step}.pt", data)
        for name, values in one.items():
            # sums in another order, which Adam's first steps enlarge for the smallest gradients
            scale = np.abs(values).max()
            np.testing.assert_allclose(several[name], values, rtol=0, atol=1e-8 * scale)
    # the frames of one rank alone give something else
    data["training"]["save_ckpt"] = "c"
    train(data, threads=1)
    other = vectors("c-1.pt", data)["mean"]
    assert np.abs(other - vectors("a-1.pt", data)["mean"]).max() > 1e-3 * np.abs(other).max()


@pytest.mark.parametrize("make", [single, double])
def test_a_restart_has_the_same_bits(folder, mpirun, make):
    data = make(folder, numb_steps=60, save_freq=20, disp_avg=True)
    run(mpirun, data, "--quiet")
    for name in ("model.ckpt-60.pt", "lcurve.out"):
        shutil.copy(name, f"whole-{name}")
    run(mpirun, data, "--quiet", "--restart", "model.ckpt-20.pt")
    assert_same_bits("whole-model.ckpt-60.pt", "model.ckpt-60.pt", data)
    assert Path("whole-lcurve.out").read_bytes() == Path("lcurve.out").read_bytes()
    data["training"]["numb_steps"] = 61
    notes = Trainer(settings_of(data), Start(restart="model.ckpt-60.pt"), threads=1).notes
    assert any("number of ranks" in note for note in notes)


class Rank(Ranks):
    """One of several, without the others: what needs no exchange."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size


def test_batches_of_ranks_are_those_of_one(folder):
    """N ranks take in a step what one takes in N steps, and an epoch has so many fewer steps."""
    data = single(folder, numb_epoch=10)
    del data["training"]["numb_steps"]
    data["training"]["training_data"]["batch_size"] = 1
    alone = Trainer(settings_of(data), threads=1)
    ranks = [Trainer(settings_of(data), threads=1, ranks=Rank(k, 2)) for k in (0, 1)]
    assert alone.steps == 40
    assert [trainer.steps for trainer in ranks] == [20, 20]
    for step in range(20):
        numbers = [trainer.data.draw(step) for trainer in ranks]
        assert numbers[0] == numbers[1]
        chosen = [t.data.tasks[0].training.chosen(numbers[0][1]) for t in ranks]
        assert chosen[0] != chosen[1]
        expected = [alone.data.tasks[0].training.chosen(2 * step + k) for k in (0, 1)]
        assert chosen == expected
        assert ranks[0].data.tasks[0].training.frames(numbers[0][1]) == 2


@pytest.mark.parametrize(
    ("rule", "factor"), [(None, 1.0), ("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)]
)
def test_scale_by_worker(folder, rule, factor):
    data = single(folder)
    data["learning_rate"] |= {"warmup_steps": 5, "warmup_start_factor": 0.1}
    plain = Trainer(settings_of(data), threads=1).schedule
    if rule is not None:
        data["learning_rate"]["scale_by_worker"] = rule
    scaled = Trainer(settings_of(data), threads=1, ranks=Rank(0, 4))
    for step in (0, 3, 5, 30, 60):
        assert scaled.schedule.rate(step) == pytest.approx(factor * plain.rate(step), rel=1e-14)
    assert any("multiplied by" in note for note in scaled.notes) == (factor != 1)
    assert Trainer(settings_of(data), threads=1).schedule.rate(30) == plain.rate(30)


def test_scale_by_worker_of_another_name():
    section = {"start_lr": 1e-3, "scale_by_worker": "cubic"}
    with pytest.raises(InputError, match="'cubic' should be linear or sqrt or none"):
        read_schedule(section, 100, "learning_rate")


# ---- files and the screen


def test_the_first_rank_speaks(folder, mpirun):
    out = run(mpirun, single(folder, numb_steps=10))
    for text in ("ranks: 2, threads of each: 1", "parameters:", "step 10 ", "the trained model"):
        assert out.count(text) == 1, out
    assert "frames/s" in out
    assert sorted(p.name for p in Path().glob("*.pt")) == ["model.ckpt-10.pt", "model.ckpt.pt"]
    assert list(read_curve("lcurve.out")["step"]) == [1, 5, 10]
    run(mpirun, single(folder, numb_steps=10), "--dry-run")


def test_finetuning_on_ranks(folder, mpirun):
    """The report is the first rank's; one frame on both ranks: the same model as of one rank."""
    path = train(single(folder, numb_steps=20), threads=1)
    write_anew(folder / "data", repelling(1, seed=5))
    options = ["data", "--validation", "held_out", "--steps", "10", "--batch", "1", "--quiet"]
    command = ["-m", "dpa2md", "finetune", str(path), *options]
    done = start(mpirun, *command, "-o", "two.dpa2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote two.dpa2") == 1
    subprocess.run([sys.executable, *command, "-o", "one.dpa2", "--threads", "1"], check=True)
    one, two = (json.loads(Path(name).read_text()) for name in ("one.json", "two.json"))
    assert one["after"] == two["after"] and one["before"] == two["before"]
    force = "force_rmse_ev_per_angstrom"
    assert one["after"][force] != one["before"][force]


# ---- errors

FAILING = """
import sys
from dpa2md.errors import RunError
from dpa2md.train import head, ranks, trainer
from dpa2md.cli import main
where, number = sys.argv[1], int(sys.argv[2])
world = ranks.started_ranks()
ranks._PATIENCE = 1.0
look, write = head.Head._look, trainer.Trainer._write
def fail(*arguments):
    raise {"RunError": RunError("no luck."), "OSError": OSError(28, "no room", "disk"),
           "bug": KeyboardInterrupt()}[sys.argv[3]]
if world.rank == number:
    if where == "look":
        head.Head._look = fail
    elif where == "write":
        trainer.Trainer._write = fail
    else:
        trainer.Trainer._read = fail
sys.exit(main(["train", "input.json", "--quiet"]))
"""


@pytest.mark.parametrize(
    ("where", "rank", "error", "sentence"),
    [
        ("read", 1, "RunError", "dpa2md train: rank 1 of 2: no luck."),
        ("look", 0, "RunError", "dpa2md train: no luck."),
        ("look", 1, "RunError", "dpa2md train: rank 1 of 2: no luck."),
        ("write", 0, "OSError", "dpa2md train: disk: no room."),
    ],
)
def test_an_error_on_one_rank_ends_all(folder, mpirun, where, rank, error, sentence):
    Path("input.json").write_text(json.dumps(single(folder)))
    done = start(mpirun, "-c", FAILING, where, str(rank), error)
    assert done.returncode == 2
    assert done.stderr.strip() == sentence
    assert done.stdout == ""


def test_a_rank_that_goes_alone_ends_all(folder, mpirun):
    """What no rank tells the others: here a second Ctrl-C."""
    Path("input.json").write_text(json.dumps(single(folder, numb_steps=10**6)))
    done = start(mpirun, "-c", FAILING, "look", "1", "bug")
    assert done.returncode != 0
    assert "dpa2md train: stopped." in done.stderr


def test_errors_of_all_ranks_are_told_once(folder, mpirun):
    done = start(mpirun, "-m", "dpa2md", "train", "nowhere.json")
    assert done.returncode == 2
    assert done.stderr.count("nowhere.json") == 1 and done.stderr.count("\n") == 1


def test_without_mpi4py(folder, mpirun, monkeypatch):
    """One sentence, and no training that overwrites the other's files."""
    Path("input.json").write_text(json.dumps(single(folder, numb_steps=5)))
    (folder / "hiding").mkdir()
    (folder / "hiding" / "mpi4py.py").write_text("raise ImportError('not here')\n")
    paths = [str(folder / "hiding"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    done = start(mpirun, "-m", "dpa2md", "train", "input.json")
    assert done.returncode == 2
    assert done.stderr.count("pip install 'dpa2md[mpi]'") == 1, done.stderr
    assert done.stdout == "" and not Path("lcurve.out").exists()
    # one rank needs none
    assert start(mpirun, "-m", "dpa2md", "train", "input.json", ranks=1).returncode == 0


def test_mpirun_of_another_mpi(folder, mpirun, monkeypatch):
    """Each process would take itself for the only one."""
    Path("input.json").write_text(json.dumps(single(folder, numb_steps=5)))
    monkeypatch.setenv("MV2_COMM_WORLD_SIZE", "3")
    monkeypatch.setenv("MV2_COMM_WORLD_RANK", "0")
    command = [sys.executable, "-m", "dpa2md", "train", "input.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    assert "mpirun has started 3 ranks" in done.stderr and "knows of 1" in done.stderr
    assert not Path("lcurve.out").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # in a batch script
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"},  # srun --mpi=none
    ],
)
def test_where_there_is_no_mpi(environment):
    assert started_ranks(environment) is ALONE


def test_threads_of_ranks(mpirun, monkeypatch):
    """The host's processors are divided; what is given stays."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None)\n"
        "from dpa2md.train.ranks import started_ranks\n"
        "ranks = started_ranks(); print(ranks.threads(0), ranks.threads(3), flush=True)\n"
        "os.environ['OMP_NUM_THREADS'] = '1'; assert ranks.threads(0) == 0"
    )
    done = start(mpirun, "-c", code)
    assert done.returncode == 0, done.stderr
    expected = max(1, len(os.sched_getaffinity(0)) // 2)
    assert sorted(done.stdout.split()) == sorted([f"{expected}", "3"] * 2)
    assert ALONE.threads(0) == 0
