-- The history of a tag, and of all tags of a repository. Deleted manifests that the history still reaches are those of
-- the repository whose name is that of theirs after a '~'; there unheld_because is 'past'.
CREATE INDEX events_by_tag ON events (repository, tag, at, seq) WHERE tag IS NOT NULL;
CREATE INDEX events_of_tags ON events (repository, at, seq) WHERE tag IS NOT NULL;
