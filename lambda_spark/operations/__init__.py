"""What runs the layers: the chain, locks, checkpoints, verification, upkeep, status."""
