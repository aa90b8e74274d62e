"""What a run keeps on disk: checkpoints, the trajectory with its table, and how both were made."""
