"""What the command that kills verbs is made of."""
