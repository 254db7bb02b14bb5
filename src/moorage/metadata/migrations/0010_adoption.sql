-- What was seen in a storage tree whose content is taken in where it lies: the manifests of each repository, named by
-- their digest, and what its tags named. Rows stay when these are deleted or moved here, so that nothing comes again.
CREATE TABLE adopted (
    repository TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;

-- Where that tree is, as long as bytes are read from it.
CREATE TABLE adopted_trees (
    place TEXT PRIMARY KEY,
    since REAL NOT NULL
) WITHOUT ROWID;
