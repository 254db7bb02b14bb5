"""The errors that a registry raises, by the names of the specification's codes."""

from moorage.spec.errors import *  # noqa: F403
