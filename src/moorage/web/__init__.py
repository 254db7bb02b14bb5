"""Floor 3: HTTP, and only HTTP."""
