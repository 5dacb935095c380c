-- Fleets of the users' own machines, which are reached by SSH.

-- +goose Up
CREATE TABLE fleets (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    configuration TEXT NOT NULL, -- sealed; it contains no keys
    username      TEXT NOT NULL, -- who applied it last
    created_at    BIGINT NOT NULL,
    applied_at    BIGINT NOT NULL,
    next_num      BIGINT NOT NULL, -- of the next host
    deleting      BOOLEAN NOT NULL,
    UNIQUE (project_id, name)
);

CREATE TABLE hosts (
    id            TEXT PRIMARY KEY, -- also that of its instance
    fleet_id      TEXT NOT NULL REFERENCES fleets (id) ON DELETE CASCADE,
    num           BIGINT NOT NULL,
    name          TEXT NOT NULL,
    address       TEXT NOT NULL,
    username      TEXT NOT NULL,
    jump_address  TEXT NOT NULL, -- empty: it is reached directly
    jump_username TEXT NOT NULL,
    access        TEXT NOT NULL, -- sealed: private keys, fingerprints and environment variables
    host_key      TEXT NOT NULL, -- pinned; empty: none was seen yet
    jump_host_key TEXT NOT NULL,
    draining      BOOLEAN NOT NULL,
    leaving       BOOLEAN NOT NULL,
    status        TEXT NOT NULL, -- that of the latest check
    health        TEXT NOT NULL, -- JSON: the latest check
    created_at    BIGINT NOT NULL,
    applied_at    BIGINT NOT NULL,
    UNIQUE (fleet_id, num)
);

-- +goose Down
DROP TABLE hosts;
DROP TABLE fleets;
