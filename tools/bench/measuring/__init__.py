"""On what machine anything is measured here, and at what commit."""
