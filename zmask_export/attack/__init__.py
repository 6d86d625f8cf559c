"""Adversarial patches: placement, appearance changes, losses, crafting, patch files."""
