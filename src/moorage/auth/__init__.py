"""Floor 1: who somebody is, and what he may do. Knows no HTTP, no database and no registry."""
