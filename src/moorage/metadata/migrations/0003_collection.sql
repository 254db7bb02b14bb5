-- What may be collected, known at every moment rather than looked for.

-- Since when no manifest of the repository references the blob; null while one does.
ALTER TABLE repository_blobs ADD COLUMN unreferenced_since REAL;
CREATE INDEX repository_blobs_unreferenced ON repository_blobs (unreferenced_since)
    WHERE unreferenced_since IS NOT NULL;

-- Made anew, since the bytes shall stay last. unheld_since: since when the manifest is to go, null while it stays;
-- unheld_because: its last index went ('index'), its subject did ('subject'), or it is a referrers list ('list').
CREATE TABLE manifests_anew (
    id INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repositories,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations TEXT,
    pushed_at REAL NOT NULL,
    pulled_at REAL,
    unheld_since REAL,
    unheld_because TEXT,
    content BLOB NOT NULL,
    UNIQUE (repository_id, digest)
);
INSERT INTO manifests_anew (id, repository_id, digest, media_type, size, subject, artifact_type, annotations,
    pushed_at, pulled_at, content)
SELECT id, repository_id, digest, media_type, size, subject, artifact_type, annotations,
    pushed_at, pulled_at, content FROM manifests;
DROP TABLE manifests;
ALTER TABLE manifests_anew RENAME TO manifests;
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifests_unheld ON manifests (unheld_because, unheld_since) WHERE unheld_since IS NOT NULL;

-- Why something was done that nobody asked for.
ALTER TABLE events ADD COLUMN reason TEXT;

-- Keys that storage listed and no fact named: a write that is under way, or what a crash left.
CREATE TABLE unnamed_keys (
    key TEXT PRIMARY KEY,
    since REAL NOT NULL
) WITHOUT ROWID;

-- Long work that one process at a time does: when it is due, or its turn is up, and how far it came.
CREATE TABLE duties (
    name TEXT PRIMARY KEY,
    due_at REAL NOT NULL,
    progress TEXT
) WITHOUT ROWID;
