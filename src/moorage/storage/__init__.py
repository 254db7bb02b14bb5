"""Floor 1: where bytes live. A backend is one module that keeps the contract in ``base``."""
