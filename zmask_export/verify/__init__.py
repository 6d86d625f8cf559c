"""Parity: reference against runner."""
