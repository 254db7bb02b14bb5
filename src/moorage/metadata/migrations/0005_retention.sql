-- Since when a manifest has no tag: the last time that one left it.
CREATE INDEX events_by_before ON events (repository, before, at) WHERE before IS NOT NULL;
