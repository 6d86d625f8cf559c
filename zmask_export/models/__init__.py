"""The networks, their checkpoints and their taps."""
