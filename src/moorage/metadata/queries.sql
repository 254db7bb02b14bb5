-- Every question the registry asks of its facts. Parameters are $1, $2, … in this order.

-- name: repository_id
SELECT id FROM repositories WHERE name = $1;

-- name: add_repository
INSERT INTO repositories (name) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: page_repositories
SELECT name FROM repositories WHERE name > $1 ORDER BY name LIMIT $2;

-- name: blob_of_repository
SELECT b.size, b.key FROM repositories r
JOIN repository_blobs l ON l.repository_id = r.id AND l.digest = $2
JOIN blobs b ON b.digest = l.digest
WHERE r.name = $1;

-- name: blob_linked_somewhere
SELECT 1 FROM repository_blobs WHERE digest = $1 LIMIT 1;

-- name: repositories_of_blob
SELECT r.name FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
WHERE l.digest = $1 AND r.name > $2 ORDER BY r.name LIMIT $3;

-- name: add_blob
INSERT INTO blobs (digest, size, key, created_at, verified_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT DO NOTHING RETURNING key;

-- name: is_linked
SELECT 1 FROM repository_blobs WHERE repository_id = $1 AND digest = $2;

-- name: link_blob
INSERT INTO repository_blobs (repository_id, digest, linked_at) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING RETURNING digest;

-- name: unlink_blob
DELETE FROM repository_blobs WHERE repository_id = $1 AND digest = $2 RETURNING digest;

-- name: manifest_by_tag
SELECT m.digest, m.media_type, m.size, m.content FROM repositories r
JOIN tags t ON t.repository_id = r.id AND t.name = $2
JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest
WHERE r.name = $1;

-- name: manifest_by_digest
SELECT m.digest, m.media_type, m.size, m.content FROM repositories r
JOIN manifests m ON m.repository_id = r.id AND m.digest = $2
WHERE r.name = $1;

-- name: describe_by_tag
SELECT m.digest, m.media_type, m.size FROM repositories r
JOIN tags t ON t.repository_id = r.id AND t.name = $2
JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest
WHERE r.name = $1;

-- name: describe_by_digest
SELECT m.digest, m.media_type, m.size FROM repositories r
JOIN manifests m ON m.repository_id = r.id AND m.digest = $2
WHERE r.name = $1;

-- name: manifest_type
SELECT media_type FROM manifests WHERE repository_id = $1 AND digest = $2;

-- name: manifest_content
SELECT content FROM manifests WHERE repository_id = $1 AND digest = $2;

-- name: add_manifest
INSERT INTO manifests
    (repository_id, digest, media_type, size, subject, artifact_type, annotations, pushed_at, content)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: set_manifest_facts
UPDATE manifests SET media_type = $3, subject = $4, artifact_type = $5, annotations = $6
WHERE repository_id = $1 AND digest = $2;

-- name: delete_manifest
DELETE FROM manifests WHERE repository_id = $1 AND digest = $2 RETURNING subject;

-- name: add_reference
INSERT INTO manifest_references (repository_id, parent, child, kind, required) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (repository_id, parent, child, kind) DO UPDATE SET required = excluded.required
WHERE excluded.required > manifest_references.required;

-- name: needed
SELECT child FROM manifest_references WHERE repository_id = $1 AND parent = $2 AND required = 1;

-- name: delete_references
DELETE FROM manifest_references WHERE repository_id = $1 AND parent = $2;

-- name: parents
SELECT DISTINCT parent FROM manifest_references WHERE repository_id = $1 AND child = $2 AND required = 1 LIMIT 10;

-- name: page_tags
SELECT t.name FROM repositories r JOIN tags t ON t.repository_id = r.id AND t.name > $2
WHERE r.name = $1 ORDER BY t.name LIMIT $3;

-- name: tag_digest
SELECT digest FROM tags WHERE repository_id = $1 AND name = $2;

-- name: set_tag
INSERT INTO tags (repository_id, name, digest, updated_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, updated_at = excluded.updated_at;

-- name: delete_tag
DELETE FROM tags WHERE repository_id = $1 AND name = $2 RETURNING digest;

-- name: delete_tags_of
DELETE FROM tags WHERE repository_id = $1 AND digest = $2 RETURNING name;

-- name: page_referrers
-- Manifests that name the subject, and those without one that a fallback tag lists; $5 filters where not null.
SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations FROM repositories r
JOIN manifests m ON m.repository_id = r.id AND m.subject = $2 AND m.digest > $4
WHERE r.name = $1 AND ($5 IS NULL OR m.artifact_type = $5)
UNION ALL
SELECT DISTINCT m.digest, m.media_type, m.size, m.artifact_type, m.annotations FROM repositories r
JOIN tags t ON t.repository_id = r.id AND t.name = $3
JOIN manifest_references c ON c.repository_id = r.id AND c.parent = t.digest AND c.child > $4
JOIN manifests m ON m.repository_id = r.id AND m.digest = c.child AND m.subject IS NULL
WHERE r.name = $1 AND ($5 IS NULL OR m.artifact_type = $5)
ORDER BY 1 LIMIT $6;

-- name: known_referrers
SELECT digest, media_type, size, artifact_type, annotations FROM manifests
WHERE repository_id = $1 AND subject >= $2 AND subject < $3 ORDER BY digest;

-- name: add_upload
INSERT INTO uploads (id, repository, algorithm, received, created_at, expires_at) VALUES ($1, $2, $3, 0, $4, $5);

-- name: upload
SELECT algorithm, received, digest FROM uploads WHERE id = $1 AND repository = $2 AND expires_at > $3;

-- name: segments
SELECT key, size FROM segments WHERE upload_id = $1 ORDER BY start;

-- name: advance_upload
UPDATE uploads SET received = $4, digest = $5, expires_at = $6
WHERE id = $1 AND repository = $2 AND received = $3 RETURNING received;

-- name: add_segment
INSERT INTO segments (upload_id, start, size, key) VALUES ($1, $2, $3, $4);

-- name: close_upload
DELETE FROM uploads WHERE id = $1 AND repository = $2 AND received = $3 RETURNING id;

-- name: cancel_upload
DELETE FROM uploads WHERE id = $1 AND repository = $2 RETURNING id;

-- name: delete_segments
DELETE FROM segments WHERE upload_id = $1 RETURNING key;

-- name: expired_uploads
SELECT id, repository FROM uploads WHERE expires_at <= $1 LIMIT $2;

-- name: add_event
INSERT INTO events (at, actor, action, repository, digest, tag, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: doom
INSERT INTO doomed (key, since) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: doomed
SELECT key FROM doomed ORDER BY since LIMIT $1;

-- name: forget_doomed
DELETE FROM doomed WHERE key = $1;

-- name: check_manifests
SELECT m.id, r.id, r.name, m.digest, m.media_type, m.size, m.subject, m.content FROM manifests m
LEFT JOIN repositories r ON r.id = m.repository_id WHERE m.id > $1 ORDER BY m.id LIMIT $2;

-- name: check_references
SELECT child FROM manifest_references WHERE repository_id = $1 AND parent = $2;

-- name: check_tags
SELECT r.name, t.name, t.digest FROM tags t JOIN repositories r ON r.id = t.repository_id
WHERE NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = t.repository_id AND m.digest = t.digest);

-- name: check_missing
SELECT r.name, c.parent, c.child, c.kind FROM manifest_references c JOIN repositories r ON r.id = c.repository_id
WHERE c.required = 1
AND NOT (c.kind <> 'manifest' AND EXISTS
    (SELECT 1 FROM repository_blobs l WHERE l.repository_id = c.repository_id AND l.digest = c.child))
AND NOT (c.kind IN ('manifest', 'content') AND EXISTS
    (SELECT 1 FROM manifests m WHERE m.repository_id = c.repository_id AND m.digest = c.child));

-- name: check_links
SELECT r.name, l.digest FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = l.digest);

-- name: check_blobs
SELECT digest, size, key FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2;

-- name: check_segments
SELECT u.id, u.repository, u.received, s.start, s.size, s.key FROM uploads u
LEFT JOIN segments s ON s.upload_id = u.id ORDER BY u.id, s.start;

-- name: check_counts
SELECT (SELECT count(*) FROM manifests), (SELECT count(*) FROM blobs), (SELECT count(*) FROM tags),
       (SELECT count(*) FROM repositories), (SELECT count(*) FROM uploads), (SELECT count(*) FROM doomed);

-- name: is_segment
SELECT 1 FROM segments WHERE key = $1;

-- name: is_named
SELECT 1 WHERE EXISTS (SELECT 1 FROM blobs WHERE key = $1) OR EXISTS (SELECT 1 FROM segments WHERE key = $1)
OR EXISTS (SELECT 1 FROM doomed WHERE key = $1);
