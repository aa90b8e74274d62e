"""What has nothing to do with models or atoms: whole files, signals, the machine."""
