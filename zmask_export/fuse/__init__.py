"""Bare graph to protected graph: plan, z-score, cascade, fusion, gate."""
