"""Makes a second model for in.deviation, as a stand-in for one that was trained from other random weights: the
weights of the fitting net change by 30 % at random.   python make_second.py water.dpa2 water-2.dpa2"""

import sys

import numpy as np
from dpa2md.model_file import read_model, write_model

records = read_model(sys.argv[1])
rng = np.random.default_rng(1)
for name, value in records.items():
    if name.startswith("fitting.net.") and name.endswith(".w"):
        changed = value * (1 + 0.3 * rng.normal(size=value.shape))
        records[name] = changed.astype(value.dtype)
write_model(sys.argv[2], records)
