"""From a large model to a small one: rounds of exploring, selecting, labelling and training."""
