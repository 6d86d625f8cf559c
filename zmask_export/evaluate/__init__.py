"""Metrics, and how well a bundle defends."""
