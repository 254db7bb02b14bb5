"""Several nodes over one PostgreSQL and one bucket, behind a balancer."""
