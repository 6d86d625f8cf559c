"""Bundles in the form that inference servers take."""
