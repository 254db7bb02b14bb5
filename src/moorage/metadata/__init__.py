"""Floor 1: the facts. Something exists exactly when a fact says so."""
