-- Tags of several repositories that go live together. state: 'draft', 'released' or 'rolled back'; actor: who brought it
-- there.
CREATE TABLE releases (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at REAL NOT NULL,
    released_at REAL,
    rolled_back_at REAL
) WITHOUT ROWID;
CREATE INDEX releases_by_age ON releases (created_at, name);

-- What a tag shall name, must name for that where it is asked (expected), and named until then; 'absent' is nothing.
-- While there is no before, it is a draft, which holds the manifest.
CREATE TABLE release_changes (
    release TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    expected TEXT,
    before TEXT,
    PRIMARY KEY (release, repository, tag)
) WITHOUT ROWID;
CREATE INDEX release_changes_held ON release_changes (repository, digest) WHERE before IS NULL;
