-- Every question the registry asks of its facts. Parameters are $1, $2, … in this order.

-- name: repository_id
SELECT id FROM repositories WHERE name = $1;

-- name: add_repository
INSERT INTO repositories (name) SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM repositories WHERE name = $1)
ON CONFLICT DO NOTHING;

-- name: page_repositories
-- Names that start with '~' are of what is past.
SELECT name FROM repositories WHERE name > $1 AND name < '~' ORDER BY name LIMIT $2;

-- name: blob_of_repository
SELECT b.size, b.key, l.unreferenced_since FROM repositories r
JOIN repository_blobs l ON l.repository_id = r.id AND l.digest = $2
JOIN blobs b ON b.digest = l.digest
WHERE r.name = $1;

-- name: blob_linked_somewhere
SELECT b.size FROM blobs b JOIN repository_blobs l ON l.digest = b.digest
JOIN repositories r ON r.id = l.repository_id
WHERE b.digest = $1 AND r.name < '~' LIMIT 1;

-- name: repositories_of_blob
SELECT r.name FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
WHERE l.digest = $1 AND r.name > $2 AND r.name < '~' ORDER BY r.name LIMIT $3;

-- name: add_blob
INSERT INTO blobs (digest, size, key, created_at, verified_at) VALUES ($1, $2, $3, $4, $4)
ON CONFLICT DO NOTHING RETURNING key;

-- name: is_linked
SELECT 1 FROM repository_blobs l JOIN blobs b ON b.digest = l.digest WHERE l.repository_id = $1 AND l.digest = $2;

-- name: has_link
SELECT 1 FROM repository_blobs WHERE repository_id = $1 AND digest = $2;

-- name: quarantine
DELETE FROM blobs WHERE digest = $1 AND key = $2 RETURNING size;

-- name: add_quarantined
INSERT INTO quarantined (digest, size, key, since, reason) VALUES ($1, $2, $3, $4, $5);

-- name: forget_quarantined
DELETE FROM quarantined WHERE digest = $1 RETURNING key;

-- name: quarantined_of_repository
SELECT q.reason, q.since FROM repositories r JOIN repository_blobs l ON l.repository_id = r.id AND l.digest = $2
JOIN quarantined q ON q.digest = l.digest WHERE r.name = $1;

-- name: quarantined_bytes
SELECT digest, size, key FROM quarantined WHERE digest > $1 ORDER BY digest LIMIT $2;

-- name: page_quarantined
SELECT digest, size, since, reason FROM quarantined WHERE digest > $1 ORDER BY digest LIMIT $2;

-- name: is_orphaned
SELECT 1 FROM quarantined q WHERE q.digest = $1
AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = $1);

-- name: page_to_verify
SELECT digest, size, key FROM blobs WHERE digest > $1 AND verified_at <= $2 ORDER BY digest LIMIT $3;

-- name: set_verified
UPDATE blobs SET verified_at = $3 WHERE digest = $1 AND key = $2;

-- name: is_held
SELECT 1 FROM repository_blobs WHERE repository_id = $1 AND digest = $2
UNION ALL SELECT 1 FROM manifests WHERE repository_id = $1 AND digest = $2;

-- name: link_blob
INSERT INTO repository_blobs (repository_id, digest, linked_at) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING RETURNING digest;

-- name: link_blob_by_name
INSERT INTO repository_blobs (repository_id, digest, linked_at)
SELECT id, $2, $3 FROM repositories WHERE name = $1
ON CONFLICT DO NOTHING RETURNING digest;

-- name: unlink_blob
DELETE FROM repository_blobs WHERE repository_id = $1 AND digest = $2 RETURNING digest;

-- name: mark_unreferenced
UPDATE repository_blobs SET unreferenced_since = $3 WHERE repository_id = $1 AND digest = $2
AND NOT EXISTS (SELECT 1 FROM manifest_references c
    WHERE c.repository_id = $1 AND c.child = $2 AND c.kind <> 'manifest');

-- name: mark_referenced
UPDATE repository_blobs SET unreferenced_since = NULL
WHERE repository_id = $1 AND digest = $2 AND unreferenced_since IS NOT NULL;

-- name: forget_blob
DELETE FROM blobs WHERE digest = $1 AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = $1)
RETURNING key;

-- name: manifest_by_tag
SELECT m.digest, m.media_type, m.size, m.content, NULL FROM repositories r
JOIN tags t ON t.repository_id = r.id AND t.name = $2
JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest
WHERE r.name = $1;

-- name: manifest_by_digest
SELECT m.digest, m.media_type, m.size, m.content, m.unheld_since FROM repositories r
JOIN manifests m ON m.repository_id = r.id AND m.digest = $2
WHERE r.name = $1;

-- name: describe_by_tag
SELECT m.digest, m.media_type, m.size, NULL FROM repositories r
JOIN tags t ON t.repository_id = r.id AND t.name = $2
JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest
WHERE r.name = $1;

-- name: describe_by_digest
SELECT m.digest, m.media_type, m.size, m.unheld_since FROM repositories r
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

-- name: mark_list
UPDATE manifests SET unheld_because = 'list' WHERE repository_id = $1 AND digest = $2;

-- name: set_manifest_facts
UPDATE manifests SET media_type = $3, subject = $4, artifact_type = $5, annotations = $6
WHERE repository_id = $1 AND digest = $2;

-- name: keep_manifest
UPDATE manifests SET unheld_since = NULL, unheld_because = NULL
WHERE repository_id = $1 AND digest = $2 AND unheld_because IS NOT NULL;

-- name: hold_manifest
UPDATE manifests SET unheld_since = NULL,
    unheld_because = CASE WHEN unheld_because = 'list' THEN unheld_because ELSE NULL END
WHERE repository_id = $1 AND digest = $2 AND unheld_since IS NOT NULL;

-- name: hold_referrers
UPDATE manifests SET unheld_since = NULL, unheld_because = NULL
WHERE repository_id = $1 AND subject = $2 AND unheld_because = 'subject';

-- name: holders
-- What keeps a manifest: tags, indexes that need it, its subject, drafts of releases; at most $3 of each.
SELECT * FROM (SELECT 'tag', t.name FROM tags t WHERE t.repository_id = $1 AND t.digest = $2 LIMIT $3) AS tagged
UNION ALL
SELECT * FROM (SELECT DISTINCT 'index', c.parent FROM manifest_references c
    WHERE c.repository_id = $1 AND c.child = $2 AND c.required = 1 LIMIT $3) AS listed
UNION ALL
SELECT * FROM (SELECT 'subject', s.digest FROM manifests m
    JOIN manifests s ON s.repository_id = m.repository_id AND s.digest = m.subject
    WHERE m.repository_id = $1 AND m.digest = $2 LIMIT $3) AS described
UNION ALL
SELECT * FROM (SELECT DISTINCT 'release', c.release FROM repositories r
    JOIN release_changes c ON c.repository = r.name AND c.digest = $2 AND c.before IS NULL
    WHERE r.id = $1 LIMIT $3) AS drafted;

-- name: set_unheld
UPDATE manifests SET unheld_since = $3, unheld_because = $4 WHERE repository_id = $1 AND digest = $2;

-- name: renew_unheld
UPDATE manifests SET unheld_since = $3 WHERE repository_id = $1 AND digest = $2 AND unheld_since IS NOT NULL;

-- name: supersede_list
UPDATE manifests SET unheld_since = $3 WHERE repository_id = $1 AND digest = $2 AND unheld_because = 'list'
AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = $1 AND t.digest = $2);

-- name: referrers_of
SELECT digest FROM manifests WHERE repository_id = $1 AND subject = $2;

-- name: delete_manifest
DELETE FROM manifests WHERE repository_id = $1 AND digest = $2 RETURNING subject, size;

-- name: move_manifest
UPDATE manifests SET repository_id = $3, unheld_since = $4, unheld_because = $5
WHERE repository_id = $1 AND digest = $2 RETURNING subject;

-- name: move_references
UPDATE manifest_references SET repository_id = $3 WHERE repository_id = $1 AND parent = $2;

-- name: add_reference
INSERT INTO manifest_references (repository_id, parent, child, kind, required) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (repository_id, parent, child, kind) DO UPDATE SET required = excluded.required
WHERE excluded.required > manifest_references.required;

-- name: children
SELECT child, kind, required FROM manifest_references WHERE repository_id = $1 AND parent = $2;

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
WHERE r.name = $1 AND (m.artifact_type = $5 OR $5 IS NULL)
UNION ALL
SELECT DISTINCT m.digest, m.media_type, m.size, m.artifact_type, m.annotations FROM repositories r
JOIN tags t ON t.repository_id = r.id AND t.name = $3
JOIN manifest_references c ON c.repository_id = r.id AND c.parent = t.digest AND c.child > $4
JOIN manifests m ON m.repository_id = r.id AND m.digest = c.child AND m.subject IS NULL
WHERE r.name = $1 AND (m.artifact_type = $5 OR $5 IS NULL)
ORDER BY 1 LIMIT $6;

-- name: known_referrers
SELECT digest, media_type, size, artifact_type, annotations FROM manifests
WHERE repository_id = $1 AND subject >= $2 AND subject < $3 ORDER BY digest;

-- name: add_upload
INSERT INTO uploads (id, repository, algorithm, received, created_at, expires_at) VALUES ($1, $2, $3, 0, $4, $5);

-- name: upload
SELECT algorithm, received, digest FROM uploads WHERE id = $1 AND repository = $2 AND expires_at > $3;

-- name: upload_with_segments
SELECT u.algorithm, u.received, u.digest, s.key FROM uploads u LEFT JOIN segments s ON s.upload_id = u.id
WHERE u.id = $1 AND u.repository = $2 AND u.expires_at > $3 ORDER BY s.start;

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
DELETE FROM uploads WHERE id = $1 AND repository = $2 RETURNING received;

-- name: delete_segments
DELETE FROM segments WHERE upload_id = $1 RETURNING key;

-- name: expired_uploads
SELECT id, repository FROM uploads WHERE expires_at <= $1 LIMIT $2;

-- name: add_event
INSERT INTO events (at, actor, action, repository, digest, tag, before, after, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: tag_change_after
SELECT before FROM events WHERE repository = $1 AND tag = $2 AND at > $3 ORDER BY at, seq LIMIT 1;

-- name: last_tag_change
SELECT before, after FROM events WHERE repository = $1 AND tag = $2 ORDER BY at DESC, seq DESC LIMIT 1;

-- name: tag_history
SELECT seq, at, actor, action, tag, before, after, reason FROM events
WHERE repository = $1 AND tag = $2 AND (at < $3 OR (at = $3 AND seq < $4)) ORDER BY at DESC, seq DESC LIMIT $5;

-- name: tags_history
SELECT seq, at, actor, action, tag, before, after, reason FROM events
WHERE repository = $1 AND tag IS NOT NULL AND (at < $2 OR (at = $2 AND seq < $3)) ORDER BY at DESC, seq DESC LIMIT $4;

-- name: page_tags_at
-- Tags that did not change after $3, and what those that did named before their first change after it.
SELECT t.name FROM repositories r JOIN tags t ON t.repository_id = r.id AND t.name > $2
WHERE r.name = $1 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.repository = $1 AND e.tag = t.name AND e.at > $3)
UNION
SELECT e.tag FROM events e WHERE e.repository = $1 AND e.tag > $2 AND e.at > $3 AND e.before IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM events f WHERE f.repository = $1 AND f.tag = e.tag AND f.at > $3
    AND (f.at < e.at OR (f.at = e.at AND f.seq < e.seq)))
ORDER BY 1 LIMIT $4;

-- name: page_referrers_at
-- $1 is the repository, $2 that of its past; $6 is the moment.
SELECT DISTINCT m.digest, m.media_type, m.size, m.artifact_type, m.annotations FROM repositories r
JOIN manifests m ON m.repository_id = r.id AND m.subject = $3 AND m.digest > $4
WHERE (r.name = $1 OR r.name = $2) AND (m.artifact_type = $5 OR $5 IS NULL)
AND m.pushed_at <= $6 AND (r.name = $1 OR m.unheld_since > $6) ORDER BY 1 LIMIT $7;

-- name: forget_events
DELETE FROM events WHERE seq IN
    (SELECT seq FROM (SELECT seq, at FROM events ORDER BY seq LIMIT $2) AS oldest WHERE at < $1) RETURNING seq;

-- name: doom
INSERT INTO doomed (key, since) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: doomed
SELECT key FROM doomed ORDER BY since LIMIT $1;

-- name: forget_doomed
DELETE FROM doomed WHERE key = $1;

-- name: due_blobs
SELECT l.repository_id, r.name, l.digest FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
WHERE l.unreferenced_since <= $1 ORDER BY l.unreferenced_since LIMIT $2;

-- name: collect_link
DELETE FROM repository_blobs WHERE repository_id = $1 AND digest = $2
AND NOT EXISTS (SELECT 1 FROM manifest_references c
    WHERE c.repository_id = $1 AND c.child = $2 AND c.kind <> 'manifest') RETURNING digest;

-- name: due_manifests
SELECT m.repository_id, r.name, m.digest FROM manifests m JOIN repositories r ON r.id = m.repository_id
WHERE m.unheld_because = $1 AND m.unheld_since <= $2 ORDER BY m.unheld_since LIMIT $3;

-- name: forget_repository
DELETE FROM repositories WHERE id = $1
AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.repository_id = $1)
AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository_id = $1)
AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = $1) RETURNING name;

-- name: page_due_manifests
SELECT m.id, r.name, m.digest, m.size, m.unheld_since FROM manifests m JOIN repositories r ON r.id = m.repository_id
WHERE m.unheld_because = $1 AND m.unheld_since <= $2 AND m.id > $3 ORDER BY m.id LIMIT $4;

-- name: page_due_blobs
-- The size is given once, with the last link, and not at all where a link that stays keeps the bytes.
SELECT l.digest, r.name, CASE WHEN EXISTS (SELECT 1 FROM repository_blobs o WHERE o.digest = l.digest
        AND (o.unreferenced_since IS NULL OR o.unreferenced_since > $1 OR o.repository_id > l.repository_id))
    THEN 0 ELSE b.size END, l.unreferenced_since
FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id JOIN blobs b ON b.digest = l.digest
WHERE l.unreferenced_since <= $1 AND (l.digest > $2 OR (l.digest = $2 AND r.name > $3))
ORDER BY l.digest, r.name LIMIT $4;

-- name: unnamed_since
SELECT since FROM unnamed_keys WHERE key = $1;

-- name: next_repository
SELECT id FROM repositories WHERE id > $1 ORDER BY id LIMIT 1;

-- name: sweep_links
SELECT l.digest, l.unreferenced_since, EXISTS (SELECT 1 FROM manifest_references c
    WHERE c.repository_id = l.repository_id AND c.child = l.digest AND c.kind <> 'manifest')
FROM repository_blobs l WHERE l.repository_id = $1 AND l.digest > $2 ORDER BY l.digest LIMIT $3;

-- name: sweep_blobs
SELECT b.digest, EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = b.digest)
FROM blobs b WHERE b.digest > $1 ORDER BY b.digest LIMIT $2;

-- name: note_unnamed
INSERT INTO unnamed_keys (key, since) VALUES ($1, $2)
ON CONFLICT (key) DO UPDATE SET since = unnamed_keys.since RETURNING since;

-- name: unnamed_between
SELECT key FROM unnamed_keys WHERE key >= $1 AND key < $2;

-- name: forget_unnamed
DELETE FROM unnamed_keys WHERE key = $1;

-- name: retention_tags
SELECT t.name, t.digest, t.updated_at, m.pulled_at FROM repositories r JOIN tags t ON t.repository_id = r.id
JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest WHERE r.name = $1;

-- name: tag_as_seen
SELECT 1 FROM tags WHERE repository_id = $1 AND name = $2 AND digest = $3 AND updated_at = $4;

-- name: untagged
-- Manifests that nothing but themselves holds, and when the last tag left each.
SELECT m.id, m.digest, m.pushed_at, m.pulled_at,
    (SELECT max(e.at) FROM events e WHERE e.repository = $1 AND e.before = m.digest)
FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.id > $2
WHERE r.name = $1 AND m.unheld_since IS NULL
AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = r.id AND t.digest = m.digest)
AND NOT EXISTS (SELECT 1 FROM manifest_references c
    WHERE c.repository_id = r.id AND c.child = m.digest AND c.required = 1)
AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repository_id = r.id AND s.digest = m.subject)
AND NOT EXISTS (SELECT 1 FROM release_changes d
    WHERE d.repository = r.name AND d.digest = m.digest AND d.before IS NULL)
ORDER BY m.id LIMIT $3;

-- name: note_pull
UPDATE manifests SET pulled_at = $3 WHERE repository_id = (SELECT id FROM repositories WHERE name = $1)
AND digest = $2 AND (pulled_at IS NULL OR pulled_at < $3);

-- name: claim_duty
INSERT INTO duties (name, due_at) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at
WHERE duties.due_at <= $3 OR duties.due_at > $4 RETURNING progress;

-- name: move_duty
UPDATE duties SET progress = $2, due_at = $3 WHERE name = $1;

-- name: places_of
-- Each repository that has a digest, as a blob or as a manifest, and since when it is to go and why.
SELECT r.id, r.name, 'blob', l.linked_at, l.unreferenced_since, NULL FROM repository_blobs l
JOIN repositories r ON r.id = l.repository_id WHERE l.digest = $1
UNION ALL
SELECT r.id, r.name, 'manifest', m.pushed_at, m.unheld_since, m.unheld_because FROM repositories r
JOIN manifests m ON m.repository_id = r.id AND m.digest = $1
ORDER BY 2, 3;

-- name: referencing
SELECT DISTINCT parent, kind FROM manifest_references
WHERE repository_id = $1 AND child = $2 AND kind <> 'manifest' ORDER BY parent LIMIT $3;

-- name: unheld
SELECT unheld_since, unheld_because FROM manifests WHERE repository_id = $1 AND digest = $2;

-- name: blob_of_digest
SELECT size FROM blobs WHERE digest = $1;

-- name: links_of
SELECT repository_id FROM repository_blobs WHERE digest = $1;

-- name: manifest_size
SELECT size FROM manifests WHERE repository_id = $1 AND digest = $2;

-- name: digests_of_repository
SELECT digest FROM manifests WHERE repository_id = $1 AND digest > $2 ORDER BY digest LIMIT $3;

-- name: tags_of
SELECT name FROM tags WHERE repository_id = $1 AND digest = $2 ORDER BY name;

-- name: unreferenced_of_repository
SELECT digest FROM repository_blobs WHERE repository_id = $1 AND unreferenced_since IS NOT NULL;

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
AND NOT (c.kind IN ('manifest', 'content') AND r.name > '~')
AND NOT (c.kind <> 'manifest' AND EXISTS
    (SELECT 1 FROM repository_blobs l WHERE l.repository_id = c.repository_id AND l.digest = c.child))
AND NOT (c.kind IN ('manifest', 'content') AND EXISTS
    (SELECT 1 FROM manifests m WHERE m.repository_id = c.repository_id AND m.digest = c.child));

-- name: check_links
SELECT r.name, l.digest, (SELECT q.reason FROM quarantined q WHERE q.digest = l.digest)
FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
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
OR EXISTS (SELECT 1 FROM doomed WHERE key = $1) OR EXISTS (SELECT 1 FROM quarantined WHERE key = $1);

-- name: user
SELECT password, member_of FROM users WHERE name = $1;

-- name: users
SELECT name, member_of, created_at FROM users ORDER BY name;

-- name: add_user
INSERT INTO users (name, password, member_of, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING name;

-- name: set_password
UPDATE users SET password = $2 WHERE name = $1 RETURNING name;

-- name: set_groups
UPDATE users SET member_of = $2 WHERE name = $1 RETURNING name;

-- name: remove_user
DELETE FROM users WHERE name = $1 RETURNING name;

-- name: api_key
SELECT name, acts_as, scope, expires_at FROM api_keys WHERE digest = $1;

-- name: api_keys
SELECT name, acts_as, scope, created_at, expires_at, used_at FROM api_keys ORDER BY name;

-- name: add_api_key
INSERT INTO api_keys (name, digest, acts_as, scope, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING name;

-- name: remove_api_key
DELETE FROM api_keys WHERE name = $1 RETURNING name;

-- name: remove_api_keys_of
DELETE FROM api_keys WHERE acts_as = $1 RETURNING name;

-- name: set_api_key_used
UPDATE api_keys SET used_at = $2 WHERE name = $1 AND (used_at IS NULL OR used_at < $2);

-- name: access_rules
SELECT id, allow, who, repositories, actions FROM access_rules ORDER BY id;

-- name: last_access_rule
SELECT COALESCE(MAX(id), 0) FROM access_rules;

-- name: add_access_rule
INSERT INTO access_rules (id, allow, who, repositories, actions, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: remove_access_rule
DELETE FROM access_rules WHERE id = $1 RETURNING id;

-- name: access_version
SELECT number FROM access_version;

-- name: raise_access_version
UPDATE access_version SET number = number + 1;

-- name: signing_keys
SELECT kid, algorithm, private, created_at, expires_at FROM signing_keys
WHERE expires_at IS NULL OR expires_at > $1 ORDER BY expires_at IS NOT NULL, created_at DESC;

-- name: signing_key
SELECT algorithm FROM signing_keys WHERE expires_at IS NULL;

-- name: add_signing_key
INSERT INTO signing_keys (kid, algorithm, private, created_at) VALUES ($1, $2, $3, $4);

-- name: expire_signing_keys
UPDATE signing_keys SET expires_at = $1 WHERE expires_at IS NULL OR expires_at > $1;

-- name: delete_signing_keys
DELETE FROM signing_keys WHERE expires_at <= $1;

-- name: add_refresh_token
INSERT INTO refresh_tokens (digest, family, name, method, proof, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: refresh_token
SELECT family, name, method, proof, expires_at, used_at FROM refresh_tokens WHERE digest = $1 AND expires_at > $2;

-- name: use_refresh_token
UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1;

-- name: expire_refresh_tokens
DELETE FROM refresh_tokens WHERE expires_at <= $1;

-- name: delete_refresh_family
DELETE FROM refresh_tokens WHERE family = $1;

-- name: delete_refresh_tokens_of
DELETE FROM refresh_tokens WHERE name = $1 RETURNING family;

-- name: lease
SELECT holder, beat FROM leases WHERE name = $1;

-- name: set_lease
INSERT INTO leases (name, holder, beat) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, beat = excluded.beat;

-- name: delete_lease
DELETE FROM leases WHERE name = $1 AND holder = $2;

-- name: is_used
SELECT 1 WHERE EXISTS (SELECT 1 FROM repositories) OR EXISTS (SELECT 1 FROM blobs) OR EXISTS (SELECT 1 FROM uploads)
OR EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM users) OR EXISTS (SELECT 1 FROM api_keys);

-- name: last_event
SELECT coalesce(max(seq), 0) FROM events;

-- name: keys_between
-- What facts name of the keys from $1 up to $2: with its size, and the digest of a blob.
SELECT key, size, digest FROM blobs WHERE key >= $1 AND key < $2
UNION ALL SELECT key, size, '' FROM segments WHERE key >= $1 AND key < $2 ORDER BY 1;

-- name: bytes_named
SELECT (SELECT coalesce(sum(size), 0) FROM blobs) + (SELECT coalesce(sum(size), 0) FROM segments);

-- name: transferred
SELECT progress FROM duties WHERE name = 'transfer';

-- name: mark_transferred
INSERT INTO duties (name, due_at, progress) VALUES ('transfer', $1, $2)
ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at, progress = excluded.progress;

-- name: quotas
SELECT pattern, bytes, tags, repositories, bytes_used, tags_used, repositories_used, counted FROM quotas
ORDER BY pattern;

-- name: quotas_of
SELECT q.pattern, q.bytes, q.tags, q.repositories, q.bytes_used, q.tags_used, q.repositories_used, q.counted
FROM quota_members m JOIN quotas q ON q.pattern = m.pattern WHERE m.name = $1 ORDER BY q.pattern;

-- name: quotas_of_new
-- All quotas, unless the repository is there, and whether its name is a member. Those that cover it are to be found.
SELECT q.pattern, q.bytes, q.tags, q.repositories, q.bytes_used, q.tags_used, q.repositories_used, q.counted,
    CASE WHEN EXISTS (SELECT 1 FROM quota_members m WHERE m.name = $1 AND m.pattern = q.pattern) THEN 1 ELSE 0 END
FROM quotas q WHERE NOT EXISTS (SELECT 1 FROM repositories r WHERE r.name = $1) ORDER BY q.pattern;

-- name: quotas_without_blob
-- Those of a name of which no other member holds the blob.
SELECT q.pattern, q.bytes, q.tags, q.repositories, q.bytes_used, q.tags_used, q.repositories_used, q.counted
FROM quota_members m JOIN quotas q ON q.pattern = m.pattern WHERE m.name = $1
AND NOT EXISTS (SELECT 1 FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
    JOIN quota_members o ON o.name = r.name AND o.pattern = q.pattern WHERE l.digest = $2 AND r.name <> $1)
ORDER BY q.pattern;

-- name: quotas_with_blob
SELECT DISTINCT m.pattern FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
JOIN quota_members m ON m.name = r.name WHERE l.digest = $1;

-- name: count
UPDATE quotas SET bytes_used = bytes_used + $2, tags_used = tags_used + $3, repositories_used = repositories_used + $4
WHERE pattern IN (SELECT m.pattern FROM quota_members m WHERE m.name = $1);

-- name: count_in_quota
UPDATE quotas SET bytes_used = bytes_used + $2, tags_used = tags_used + $3, repositories_used = repositories_used + $4
WHERE pattern = $1;

-- name: uncount_blob
-- For a blob that went from a repository: it counts no more unless another member holds it.
UPDATE quotas SET bytes_used = bytes_used - coalesce((SELECT b.size FROM blobs b WHERE b.digest = $2),
    (SELECT d.size FROM quarantined d WHERE d.digest = $2), 0)
WHERE pattern IN (SELECT m.pattern FROM quota_members m WHERE m.name = $1)
AND NOT EXISTS (SELECT 1 FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
    JOIN quota_members o ON o.name = r.name AND o.pattern = quotas.pattern WHERE l.digest = $2);

-- name: add_member
INSERT INTO quota_members (name, pattern) VALUES ($1, $2);

-- name: is_member
SELECT 1 FROM quota_members WHERE name = $1 AND pattern = $2;

-- name: leave_quotas
-- The names of what is not there any more.
DELETE FROM quota_members WHERE name = $1
AND NOT EXISTS (SELECT 1 FROM repositories r WHERE r.name = $1)
AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.repository = $1 AND u.received > 0);

-- name: brought_to_quota
-- What $2, no member yet, has that no member of the quota $1 has: bytes, tags, repositories.
SELECT CAST(coalesce((SELECT sum(coalesce(b.size, d.size)) FROM repositories r
        JOIN repository_blobs l ON l.repository_id = r.id
        LEFT JOIN blobs b ON b.digest = l.digest LEFT JOIN quarantined d ON d.digest = l.digest
        WHERE r.name = $2 AND NOT EXISTS (SELECT 1 FROM repository_blobs e JOIN repositories o ON o.id = e.repository_id
            JOIN quota_members m ON m.name = o.name AND m.pattern = $1
            WHERE e.digest = l.digest)), 0)
    + coalesce((SELECT sum(x.size) FROM repositories r JOIN manifests x ON x.repository_id = r.id
        WHERE r.name = $2), 0)
    + coalesce((SELECT sum(u.received) FROM uploads u WHERE u.repository = $2 AND u.received > 0), 0) AS BIGINT),
    (SELECT count(*) FROM repositories r JOIN tags t ON t.repository_id = r.id WHERE r.name = $2),
    (SELECT count(*) FROM repositories r WHERE r.name = $2 AND r.name < '~');

-- name: page_names
-- Of repositories, and of sessions that received something; and which of them are members.
SELECT n.name, CASE WHEN EXISTS (SELECT 1 FROM quota_members m WHERE m.name = n.name AND m.pattern = $1)
    THEN 1 ELSE 0 END
FROM (SELECT name FROM repositories WHERE name > $2
    UNION SELECT repository FROM uploads WHERE repository > $2 AND received > 0 ORDER BY 1 LIMIT $3) AS n ORDER BY 1;

-- name: add_quota
INSERT INTO quotas (pattern, bytes, tags, repositories, bytes_used, tags_used, repositories_used, counted)
VALUES ($1, $2, $3, $4, 0, 0, 0, 0);

-- name: set_quota
UPDATE quotas SET bytes = $2, tags = $3, repositories = $4 WHERE pattern = $1;

-- name: empty_quota
UPDATE quotas SET bytes_used = 0, tags_used = 0, repositories_used = 0, counted = 0 WHERE pattern = $1;

-- name: set_counted
UPDATE quotas SET counted = 1 WHERE pattern = $1;

-- name: delete_quota
DELETE FROM quotas WHERE pattern = $1;

-- name: delete_members
DELETE FROM quota_members WHERE pattern = $1;

-- name: recount
-- What quotas say that their members have, and what they do have.
SELECT q.pattern, q.bytes_used, q.tags_used, q.repositories_used,
    CAST(coalesce((SELECT sum(b.size) FROM (SELECT digest, size FROM blobs
            UNION ALL SELECT digest, size FROM quarantined) AS b
        WHERE EXISTS (SELECT 1 FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id
            JOIN quota_members m ON m.name = r.name AND m.pattern = q.pattern WHERE l.digest = b.digest)), 0)
    + coalesce((SELECT sum(x.size) FROM quota_members m JOIN repositories r ON r.name = m.name
        JOIN manifests x ON x.repository_id = r.id WHERE m.pattern = q.pattern), 0)
    + coalesce((SELECT sum(u.received) FROM quota_members m JOIN uploads u ON u.repository = m.name AND u.received > 0
        WHERE m.pattern = q.pattern), 0) AS BIGINT),
    (SELECT count(*) FROM quota_members m JOIN repositories r ON r.name = m.name
        JOIN tags t ON t.repository_id = r.id WHERE m.pattern = q.pattern),
    (SELECT count(*) FROM quota_members m JOIN repositories r ON r.name = m.name
        WHERE m.pattern = q.pattern AND r.name < '~')
FROM quotas q ORDER BY q.pattern;

-- name: adopted
SELECT name, digest FROM adopted WHERE repository = $1;

-- name: note_adopted
INSERT INTO adopted (repository, name, digest) VALUES ($1, $2, $3)
ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest;

-- name: adopted_trees
SELECT place FROM adopted_trees;

-- name: add_adopted_tree
INSERT INTO adopted_trees (place, since) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: forget_adopted_trees
DELETE FROM adopted_trees;

-- name: add_blob_in_tree
-- Never verified; and what is quarantined stays so, since it may be these bytes that are damaged.
INSERT INTO blobs (digest, size, key, created_at, verified_at)
SELECT $1, $2, $3, $4, 0 WHERE NOT EXISTS (SELECT 1 FROM quarantined WHERE digest = $1)
ON CONFLICT DO NOTHING;

-- name: blobs_in_tree
SELECT digest, size, key FROM blobs WHERE digest > $1 AND key LIKE '%-%' ORDER BY digest LIMIT $2;

-- name: move_bytes
UPDATE blobs SET key = $3, verified_at = $4 WHERE digest = $1 AND key = $2 RETURNING digest;

-- name: release
SELECT name, state, actor, created_at, released_at, rolled_back_at FROM releases WHERE name = $1;

-- name: page_releases
SELECT name, state, actor, created_at, released_at, rolled_back_at FROM releases
WHERE created_at < $1 OR (created_at = $1 AND name < $2) ORDER BY created_at DESC, name DESC LIMIT $3;

-- name: release_changes
SELECT repository, tag, digest, expected, before FROM release_changes WHERE release = $1 ORDER BY repository, tag;

-- name: release_repositories
SELECT DISTINCT repository FROM release_changes WHERE release = $1;

-- name: add_release
INSERT INTO releases (name, state, actor, created_at) VALUES ($1, 'draft', $2, $3);

-- name: add_release_change
INSERT INTO release_changes (release, repository, tag, digest, expected) VALUES ($1, $2, $3, $4, $5);

-- name: set_release_before
UPDATE release_changes SET before = $4 WHERE release = $1 AND repository = $2 AND tag = $3;

-- name: set_released
UPDATE releases SET state = 'released', actor = $2, released_at = $3 WHERE name = $1;

-- name: set_rolled_back
UPDATE releases SET state = 'rolled back', actor = $2, rolled_back_at = $3 WHERE name = $1;

-- name: delete_release
DELETE FROM releases WHERE name = $1;

-- name: delete_release_changes
DELETE FROM release_changes WHERE release = $1;

-- name: releases_before
SELECT name FROM releases WHERE created_at < $1 AND released_at < $1 ORDER BY created_at LIMIT $2;
