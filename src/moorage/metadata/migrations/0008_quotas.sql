-- What quotas allow (null: any number) and how much of it is used. A quota counts what its members have; while it is
-- not counted, some of the names that its pattern covers are not members yet.
CREATE TABLE quotas (
    pattern TEXT PRIMARY KEY,
    bytes INTEGER,
    tags INTEGER,
    repositories INTEGER,
    bytes_used INTEGER NOT NULL,
    tags_used INTEGER NOT NULL,
    repositories_used INTEGER NOT NULL,
    counted INTEGER NOT NULL
) WITHOUT ROWID;

-- A name of a repository, or of upload sessions whose repository is not there yet, that a quota covers.
CREATE TABLE quota_members (
    name TEXT NOT NULL,
    pattern TEXT NOT NULL REFERENCES quotas,
    PRIMARY KEY (name, pattern)
) WITHOUT ROWID;
CREATE INDEX quota_members_by_pattern ON quota_members (pattern, name);
CREATE INDEX uploads_by_repository ON uploads (repository) WHERE received > 0;
