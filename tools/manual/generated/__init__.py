"""Markdown that is written from the code."""
