-- Since when a manifest has no tag: the last time that one left it.
CREATE INDEX events_by_before ON events (repository, before, at) WHERE before IS NOT NULL;

-- Content whose bytes were found damaged. It is in no blobs row, so it is not there for anyone, but its links are: the
-- next push of the digest brings it back for all of them.
CREATE TABLE quarantined (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    since REAL NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;
