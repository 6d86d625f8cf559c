"""Whether the scores of clean frames are still those of the calibration."""
