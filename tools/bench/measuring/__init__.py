"""How anything is measured here: in turns, on a named machine, in sessions that rest between runs."""
