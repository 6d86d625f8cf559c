"""File formats: calibration file, manifest; hashes; writes that are whole or did not happen."""
