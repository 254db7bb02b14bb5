-- The facts of a registry. Times are seconds since 1970 (UTC); sizes are bytes; text sorts bytewise.

CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- One row for each stored content, however many repositories hold it.
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    verified_at REAL NOT NULL
) WITHOUT ROWID;

-- A blob can be pulled from a repository only through its link there.
CREATE TABLE repository_blobs (
    repository_id INTEGER NOT NULL REFERENCES repositories,
    digest TEXT NOT NULL REFERENCES blobs,
    linked_at REAL NOT NULL,
    PRIMARY KEY (repository_id, digest)
) WITHOUT ROWID;
CREATE INDEX repository_blobs_by_digest ON repository_blobs (digest);

-- The bytes stand last: listings read what comes before them and leave them on the disk.
CREATE TABLE manifests (
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
    content BLOB NOT NULL,
    UNIQUE (repository_id, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE manifest_references (
    repository_id INTEGER NOT NULL REFERENCES repositories,
    parent TEXT NOT NULL,
    child TEXT NOT NULL,
    kind TEXT NOT NULL,
    required INTEGER NOT NULL,
    PRIMARY KEY (repository_id, parent, child, kind)
) WITHOUT ROWID;
CREATE INDEX manifest_references_by_child ON manifest_references (repository_id, child);

CREATE TABLE tags (
    repository_id INTEGER NOT NULL REFERENCES repositories,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (repository_id, name)
) WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository_id, digest);

-- An upload session is a list of immutable segments; digest is that of all bytes received, where it is known.
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    received INTEGER NOT NULL,
    digest TEXT,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_expiry ON uploads (expires_at);
CREATE TABLE segments (
    upload_id TEXT NOT NULL REFERENCES uploads,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    PRIMARY KEY (upload_id, start)
) WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT,
    tag TEXT,
    before TEXT,
    after TEXT
);

-- Bytes that no fact needs any more; tried until they are gone.
CREATE TABLE doomed (
    key TEXT PRIMARY KEY,
    since REAL NOT NULL
) WITHOUT ROWID;
