"""The training, optimizer and validating sections of DeePMD-kit 3.2's input: keys and defaults."""

from __future__ import annotations

from .sections import REQUIRED, Key


def _off(remedy: str) -> Key:
    return Key("true or false", False, only=(False,), remedy=remedy)


_STATISTICS = {
    "stat_file": Key("text"),
    "stat_file_mode": Key(
        "text", "update", only=("update",),
        remedy="dpa2md makes the statistics anew; leave it out",
    ),
}  # fmt: skip

TASK_DATA = _STATISTICS | {
    "training_data": Key("table", REQUIRED),
    "validation_data": Key("table | null", None),
}

SINGLE_TASK = TASK_DATA | {
    "numb_epoch": Key("number", aliases=("num_epochs", "num_epoch", "numb_epochs")),
}

MULTI_TASK = {
    "data_dict": Key("table", REQUIRED),
    "model_prob": Key("table", {}),
    "num_epoch_dict": Key("table", {}),
}

TRAINING = {
    "numb_steps": Key(
        "integer", aliases=("stop_batch", "num_step", "num_steps", "numb_step"), least=1
    ),
    "seed": Key("integer | null", least=0),
    "disp_file": Key("text", "lcurve.out"),
    "disp_freq": Key("integer", 1000, least=1),
    "disp_avg": Key("true or false", False),
    "save_freq": Key("integer", 1000, least=1),
    "save_dir": Key("text | null", None),
    "save_ckpt": Key("text", "model.ckpt"),
    "max_ckpt_keep": Key("integer", 5, least=1),
    "ckpt_keep_ratio": Key("number | null", None),
    "gradient_max_norm": Key("number", least=0.0),
    "change_bias_after_training": Key("true or false", False),
    # not supported
    "enable_ema": _off("dpa2md keeps no averages of the parameters; leave it out"),
    "profiling": _off("dpa2md bench shows where the time goes; leave it out"),
    "enable_profiler": _off("dpa2md bench shows where the time goes; leave it out"),
    "tensorboard": _off("dpa2md writes the curve to disp_file only; leave it out"),
    "mixed_precision": Key(
        "table | null", only=(None,), remedy="the precision is the model's; leave it out"
    ),
    "acc_freq": Key(
        "integer", 1, only=(1,), remedy="raise batch_size to add up more frames a step instead"
    ),
    "zero_stage": Key("integer", 0, only=(0,), remedy="dpa2md trains in one process; leave it out"),
    # of speed, printing, or of what is not supported
    "disp_training": Key("true or false", True),
    "time_training": Key("true or false", True),
    "enable_compile": Key("true or false", False),
    "enable_tf32": Key("true or false", False),
    "neighbor_graph_method": Key("text", "auto"),
    "profiling_file": Key("text", "timeline.json"),
    "tensorboard_log_dir": Key("text", "log"),
    "tensorboard_freq": Key("integer", 1),
    "ema_decay": Key("number", 0.999),
    "ema_ckpt_keep": Key("integer | null", None),
}

_ADAM = {
    "type": Key("text", "Adam"),
    "adam_beta1": Key("number", 0.9, least=0.0),
    "adam_beta2": Key("number", 0.999, least=0.0),
    # AdamW's 0.001 of the schema never comes true: DeePMD-kit 3.2 puts in Adam's 0 before
    "weight_decay": Key("number", 0.0, least=0.0),
}
OPTIMIZERS = {"Adam": _ADAM, "AdamW": _ADAM}

VALIDATING = {
    "full_validation": _off(
        "dpa2md eval compares checkpoints with all data; leave the section out"
    ),
    "ema_full_validation": _off("dpa2md keeps no averages of the parameters; leave it out"),
    "validation_freq": Key("integer"),
    "save_best": Key("true or false"),
    "save_best_dir": Key("text | null"),
    "max_best_ckpt": Key("integer"),
    "validation_metric": Key("text"),
    "full_val_file": Key("text"),
    "full_val_start": Key("number"),
    "compiled_infer": Key("true or false"),
    "tf32_infer": Key("true or false"),
    "amp_infer": Key("true or false"),
}
