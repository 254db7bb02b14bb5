"""Floor 2: the verbs of the specification, joining bytes and facts. Knows protocols only."""

from moorage.registry.registry import Registry

__all__ = ["Registry"]
