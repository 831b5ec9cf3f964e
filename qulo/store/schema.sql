-- The tables of version 1, as a new database gets them. An older one gets here by the steps in schema/, and a test
-- compares the two. Times are milliseconds since 1970.

-- Single values: agent (who this store is to a master), next_number, spool_last, spool_messages, spool_bytes; backup is
-- there in a copy that was never opened.
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

-- name is NULL in a removed stream whose messages are not gone yet. definition is JSON: no query compares
-- anything in it. last is the highest number ever given as of the last removal: the highest number stored may be above
-- it, and what is not removed counts itself. (So a commit that only appends writes a page less, which is a tenth of all.)
CREATE TABLE stream (
    number INTEGER PRIMARY KEY,
    name TEXT UNIQUE,
    definition TEXT NOT NULL,
    last INTEGER NOT NULL
);

-- last is the highest number ever stored on the topic: that message may be gone.
CREATE TABLE topic (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    name TEXT NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (stream, name)
);
CREATE INDEX topic_empty ON topic (id) WHERE messages = 0;

-- key is stream << 48 | sequence number: one B-tree in which every stream is appended to at its end. No index is paid
-- for by a message that does not need it: ranked is the topic's id in streams that keep a number per topic, else NULL.
-- (An index on topic for all halves the speed with 50 topics in turn.) body is last: what is long is on other pages.
CREATE TABLE message (
    key INTEGER PRIMARY KEY,
    topic INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    time INTEGER NOT NULL,
    id TEXT,
    visible INTEGER,
    expires INTEGER,
    ranked INTEGER,
    body BLOB NOT NULL
);
CREATE INDEX message_visible ON message (key >> 48, visible) WHERE visible IS NOT NULL;
CREATE INDEX message_expires ON message (expires) WHERE expires IS NOT NULL;
CREATE INDEX message_ranked ON message (ranked) WHERE ranked IS NOT NULL;

-- Ids within their stream's window.
CREATE TABLE dedupe (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
) WITHOUT ROWID;
CREATE INDEX dedupe_time ON dedupe (stream, time);

-- The highest spool number stored of each agent. Never pruned: it is what keeps a put of long ago from coming twice.
CREATE TABLE mark (agent TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;

-- stream is NULL in a removed group whose rows elsewhere are not gone yet.
CREATE TABLE member_group (
    id INTEGER PRIMARY KEY,
    stream INTEGER,
    name TEXT NOT NULL,
    floor INTEGER NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (stream, name)
);

-- Spans of acknowledged numbers above the floor.
CREATE TABLE acked (
    member_group INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (member_group, first)
) WITHOUT ROWID;

CREATE TABLE retry (
    member_group INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    PRIMARY KEY (member_group, seq)
) WITHOUT ROWID;

-- Copies, with names instead of numbers: a letter outlives its message, its group and its stream. stream is '' for one of
-- the spool.
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    stream TEXT NOT NULL,
    member_group TEXT NOT NULL,
    seq INTEGER NOT NULL,
    topic TEXT NOT NULL,
    kind INTEGER NOT NULL,
    time INTEGER NOT NULL,
    id TEXT,
    visible INTEGER,
    expires INTEGER,
    reason TEXT NOT NULL,
    tries INTEGER NOT NULL,
    dead_time INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX dead_group ON dead (stream, member_group);

-- An agent's puts that its master does not have yet.
CREATE TABLE spool (
    number INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    kind INTEGER NOT NULL,
    time INTEGER NOT NULL,
    id TEXT,
    visible INTEGER,
    expires INTEGER,
    body BLOB NOT NULL
);
