"""Each contract of moorage.testing on each backend of Moorage."""
