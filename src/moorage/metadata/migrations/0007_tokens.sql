-- Keys that sign tokens. The one without an end signs; those before it verify until their end.
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    private TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL
);

-- Refresh tokens by a digest; a family is what came from one login, one token from the other.
CREATE TABLE refresh_tokens (
    digest TEXT PRIMARY KEY,
    family TEXT NOT NULL,
    name TEXT NOT NULL,
    method TEXT NOT NULL,
    proof TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_name ON refresh_tokens (name);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);
