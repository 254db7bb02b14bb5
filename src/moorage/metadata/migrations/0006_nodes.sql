-- What one process at a time may do: who does it, and how often he said so. No clock is needed to tell whether he still
-- does: the number grows or it does not.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    beat INTEGER NOT NULL
) WITHOUT ROWID;
