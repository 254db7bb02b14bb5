-- Who there is and what they may do. Groups, patterns and actions are lists in JSON.

CREATE TABLE users (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL,
    member_of TEXT NOT NULL,
    created_at REAL NOT NULL
);

-- Only the digest of a key's secret is kept; acts_as is the user whose rights it has, NULL for a key of its own.
CREATE TABLE api_keys (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    acts_as TEXT,
    scope TEXT,
    created_at REAL NOT NULL,
    expires_at REAL,
    used_at REAL
);

CREATE TABLE access_rules (
    id INTEGER PRIMARY KEY,
    allow INTEGER NOT NULL,
    who TEXT NOT NULL,
    repositories TEXT NOT NULL,
    actions TEXT NOT NULL,
    created_at REAL NOT NULL
);

-- One row: how often the rules were changed.
CREATE TABLE access_version (
    number INTEGER NOT NULL
);
INSERT INTO access_version (number) VALUES (0);
