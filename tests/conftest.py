"""What concerns every test."""

import os

from tests.server import CI

if CI:  # read once; where pytest sees it, it explains a difference between megabytes in full, which takes hours
    os.environ.pop("CI")
