"""What runs the layers: arguments, locks, checkpoints, verification."""
