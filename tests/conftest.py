"""What concerns every test."""

import os

from tests.buckets import azurite, google, moto, seaweedfs
from tests.postgres import database, new_database, postgres
from tests.server import CI

__all__ = ["azurite", "database", "google", "moto", "new_database", "postgres", "seaweedfs"]

if CI:  # read once; where pytest sees it, it explains a difference between megabytes in full, which takes hours
    os.environ.pop("CI")
