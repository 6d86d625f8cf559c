"""What a bundle costs where it runs: latency, its parts, memory. Imports no torch."""
