-- Every query of the store, under the name in the line above it; the comment below that line says what it is for.

-- == meta ==

-- name: meta
-- All single values.
SELECT name, value FROM meta;

-- name: set_meta
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: forget_meta
DELETE FROM meta WHERE name = ?;

-- == streams ==

-- name: streams
-- Removed ones too: they are swept after a restart as well.
SELECT number, name, definition, last FROM stream;

-- name: last_key
SELECT max(key) FROM message WHERE key BETWEEN ? AND ?;

-- name: count_stream
SELECT coalesce(sum(messages), 0), coalesce(sum(bytes), 0) FROM topic WHERE stream = ?;

-- name: add_stream
INSERT INTO stream (number, name, definition, last) VALUES (?, ?, ?, 0);

-- name: change_stream
UPDATE stream SET definition = ? WHERE number = ?;

-- name: remove_stream
UPDATE stream SET name = NULL WHERE number = ?;

-- name: forget_stream
DELETE FROM stream WHERE number = ?;

-- name: set_last
-- Once for each stream that a commit removed messages of.
UPDATE stream SET last = ? WHERE number = ?;

-- == topics ==

-- name: topic
SELECT id FROM topic WHERE stream = ? AND name = ?;

-- name: add_topic
INSERT INTO topic (stream, name, messages, bytes, last) VALUES (?, ?, 0, 0, 0);

-- name: count_topic
-- Once for each topic that a commit appended to.
UPDATE topic SET messages = messages + ?, bytes = bytes + ?, last = max(last, ?) WHERE id = ?;

-- name: discount_topic
-- Once for each topic that a commit removed messages of.
UPDATE topic SET messages = messages - ?, bytes = bytes - ? WHERE id = ?;

-- name: topics
-- By name, from a name on; the caller stops where its pattern's prefix ends.
SELECT id, name, messages, bytes, last FROM topic WHERE stream = ? AND name >= ? AND messages > 0 ORDER BY name;

-- name: crowded_topics
-- Which topics have more messages than their stream keeps.
SELECT id FROM topic WHERE stream = ? AND messages > ? LIMIT ?;

-- name: topic_messages
SELECT messages FROM topic WHERE id = ?;

-- name: empty_topics
-- A thousand empty ones are kept: a topic whose queue runs empty now and then is not made anew each time.
SELECT id FROM topic WHERE messages = 0 ORDER BY id LIMIT ? OFFSET 1000;

-- name: forget_topic
DELETE FROM topic WHERE id = ?;

-- name: sweep_topics
DELETE FROM topic WHERE id IN (SELECT id FROM topic WHERE stream = ? LIMIT ?);

-- == messages ==

-- name: append
INSERT INTO message (key, topic, kind, time, id, visible, expires, ranked, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: read
-- From one key to another. The join is CROSS so that the message is looked up first, always.
SELECT m.key, t.name, m.kind, m.body, m.time, m.id, m.visible, m.expires
FROM message m CROSS JOIN topic t ON t.id = m.topic
WHERE m.key BETWEEN ? AND ? ORDER BY m.key LIMIT ?;

-- name: message
SELECT m.key, t.name, m.kind, m.body, m.time, m.id, m.visible, m.expires
FROM message m CROSS JOIN topic t ON t.id = m.topic WHERE m.key = ?;

-- name: first_key
SELECT min(key) FROM message WHERE key BETWEEN ? AND ?;

-- name: key_and_time
-- One probe of the search by time.
SELECT key, time FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 1;

-- name: last_on_topic
-- Only where the topic's last message went before older ones (acked out of order, expired): walks back from there.
SELECT max(key) FROM message WHERE key BETWEEN ? AND ? AND topic = ?;

-- name: last_ranked
-- The same in a stream that keeps a number per topic, by its index.
SELECT max(key) FROM message WHERE ranked = ?;

-- name: delayed
SELECT visible, key FROM message WHERE key >> 48 = ? AND visible > ? ORDER BY visible, key LIMIT ?;

-- name: limit_range
-- The key of the last of at most so many messages in a range.
SELECT max(key), count(*) FROM (SELECT key FROM message WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?);

-- name: weigh_range
-- What removing a range takes from the counts of each topic.
SELECT m.topic, count(*), sum(length(m.body)) + count(*) * length(CAST(t.name AS BLOB))
FROM message m CROSS JOIN topic t ON t.id = m.topic WHERE m.key BETWEEN ? AND ? GROUP BY m.topic;

-- name: remove_range
DELETE FROM message WHERE key BETWEEN ? AND ?;

-- name: sizes
-- Oldest first, for limits on bytes and age; read only as far as is needed.
SELECT m.key, length(m.body) + length(CAST(t.name AS BLOB)), m.time
FROM message m CROSS JOIN topic t ON t.id = m.topic WHERE m.key BETWEEN ? AND ? ORDER BY m.key;

-- name: weigh
SELECT m.topic, length(m.body) + length(CAST(t.name AS BLOB))
FROM message m CROSS JOIN topic t ON t.id = m.topic WHERE m.key = ?;

-- name: remove
DELETE FROM message WHERE key = ?;

-- name: expired
-- Of all streams; those of removed streams are swept with them.
SELECT key FROM message WHERE expires <= ? ORDER BY expires LIMIT ?;

-- name: oldest_ranked
SELECT key FROM message WHERE ranked = ? ORDER BY key LIMIT ?;

-- == ids and marks ==

-- name: seen
SELECT seq, time FROM dedupe WHERE stream = ? AND id = ?;

-- name: remember
INSERT INTO dedupe (stream, id, seq, time) VALUES (?, ?, ?, ?)
ON CONFLICT (stream, id) DO UPDATE SET seq = excluded.seq, time = excluded.time;

-- name: forget_ids
-- Not (stream, id) IN (SELECT stream, id …): for that all of a stream's ids are looked at, a million of them each time.
DELETE FROM dedupe WHERE stream = ?1 AND id IN (SELECT id FROM dedupe WHERE stream = ?1 AND time <= ?2 LIMIT ?3);

-- name: sweep_ids
DELETE FROM dedupe WHERE stream = ?1 AND id IN (SELECT id FROM dedupe WHERE stream = ?1 LIMIT ?2);

-- name: marks
SELECT agent, number FROM mark;

-- name: set_mark
INSERT INTO mark (agent, number) VALUES (?, ?) ON CONFLICT (agent) DO UPDATE SET number = excluded.number;

-- == groups ==

-- name: groups
SELECT id, stream, name, floor, created FROM member_group;

-- name: add_group
INSERT INTO member_group (stream, name, floor, created) VALUES (?, ?, ?, ?);

-- name: remove_group
UPDATE member_group SET stream = NULL WHERE id = ?;

-- name: forget_group
DELETE FROM member_group WHERE id = ?;

-- name: set_floor
UPDATE member_group SET floor = ? WHERE id = ?;

-- name: acked
SELECT member_group, first, last FROM acked;

-- name: set_span
INSERT INTO acked (member_group, first, last) VALUES (?, ?, ?)
ON CONFLICT (member_group, first) DO UPDATE SET last = excluded.last;

-- name: forget_span
DELETE FROM acked WHERE member_group = ? AND first = ?;

-- name: sweep_acked
DELETE FROM acked WHERE (member_group, first) IN (SELECT member_group, first FROM acked WHERE member_group = ? LIMIT ?);

-- name: count_retries
SELECT member_group, count(*) FROM retry GROUP BY member_group;

-- name: retries
SELECT seq, tries, not_before FROM retry WHERE member_group = ? AND seq > ? ORDER BY seq LIMIT ?;

-- name: change_retry
UPDATE retry SET tries = ?, not_before = ? WHERE member_group = ? AND seq = ?;

-- name: add_retry
INSERT INTO retry (tries, not_before, member_group, seq) VALUES (?, ?, ?, ?);

-- name: forget_retries
DELETE FROM retry WHERE member_group = ? AND seq BETWEEN ? AND ?;

-- name: sweep_retries
DELETE FROM retry WHERE (member_group, seq) IN (SELECT member_group, seq FROM retry WHERE member_group = ? LIMIT ?);

-- == dead letters ==

-- name: bury
-- The message stays where it is; acking it is what lets it go.
INSERT INTO dead (stream, member_group, reason, tries, dead_time, seq, topic, kind, time, id, visible, expires, body)
SELECT ?, ?, ?, ?, ?, ?, t.name, m.kind, m.time, m.id, m.visible, m.expires, m.body
FROM message m CROSS JOIN topic t ON t.id = m.topic WHERE m.key = ?;

-- name: bury_spooled
INSERT INTO dead (stream, member_group, reason, tries, dead_time, seq, topic, kind, time, id, visible, expires, body)
SELECT '', '', ?, 0, ?, number, topic, kind, time, id, visible, expires, body FROM spool WHERE number = ?;

-- name: dead
SELECT number, stream, member_group, seq, topic, length(body), reason, tries, dead_time
FROM dead WHERE number > ? ORDER BY number LIMIT ?;

-- name: letter
SELECT number, stream, member_group, seq, topic, length(body), reason, tries, dead_time,
       kind, body, time, id, visible, expires
FROM dead WHERE number = ?;

-- name: dead_counts
SELECT stream, member_group, count(*) FROM dead GROUP BY stream, member_group;

-- name: forget_letters
DELETE FROM dead WHERE number IN (SELECT number FROM dead WHERE number BETWEEN ? AND ? ORDER BY number LIMIT ?);

-- == the spool ==

-- name: spool
INSERT INTO spool (number, topic, kind, body, time, id, visible, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: spooled
SELECT number, topic, kind, body, time, id, visible, expires FROM spool WHERE number > ? ORDER BY number LIMIT ?;

-- name: first_spooled
SELECT min(number) FROM spool;

-- name: weigh_spool
SELECT count(*), coalesce(sum(length(body) + length(CAST(topic AS BLOB))), 0) FROM spool WHERE number BETWEEN ? AND ?;

-- name: forget_spooled
DELETE FROM spool WHERE number BETWEEN ? AND ?;

-- == upkeep ==

-- name: integrity
PRAGMA integrity_check;

-- name: recount
-- What the counts of a stream should be.
SELECT count(*), max(key), coalesce(sum(length(m.body) + length(CAST(t.name AS BLOB))), 0)
FROM message m CROSS JOIN topic t ON t.id = m.topic WHERE m.key BETWEEN ? AND ?;

-- name: topicless
-- Messages whose topic is lost.
SELECT count(*) FROM message WHERE topic NOT IN (SELECT id FROM topic);

-- name: pages
PRAGMA page_count;

-- name: free_pages
PRAGMA freelist_count;

-- name: page_size
PRAGMA page_size;
