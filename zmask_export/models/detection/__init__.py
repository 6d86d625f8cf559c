"""Detectors: torchvision's own networks behind one contract."""
