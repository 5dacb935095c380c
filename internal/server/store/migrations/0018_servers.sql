-- The servers that share the database, and which of them works on an instance.

-- +goose Up
CREATE TABLE servers (
    id         TEXT PRIMARY KEY,
    process    TEXT NOT NULL,
    name       TEXT NOT NULL,
    url        TEXT NOT NULL, -- empty: other servers cannot reach it
    version    TEXT NOT NULL,
    machine    TEXT NOT NULL, -- JSON of a dstack.ServerMachine
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL, -- by the clock of the database
    ended      BOOLEAN NOT NULL
);

ALTER TABLE instances ADD COLUMN holder TEXT NOT NULL DEFAULT ''; -- the server that works on it; empty: the next that claims it

-- +goose Down
ALTER TABLE instances DROP COLUMN holder;
DROP TABLE servers;
