"""What can be done to a repository, or to the registry as a whole."""

from enum import StrEnum


class Action(StrEnum):
    """``create`` is the first push to a repository, ``retag`` lets an existing tag name something else.

    ``catalog`` and ``admin`` also concern the registry as a whole: who may list it, who may manage it.
    """

    PULL = "pull"
    PUSH = "push"
    CREATE = "create"
    RETAG = "retag"
    DELETE = "delete"
    CATALOG = "catalog"
    ADMIN = "admin"
