-- Machines that are rented from clouds: how they are reached, and what was left over there.

-- +goose Up
CREATE TABLE rented_hosts (
    instance_id TEXT PRIMARY KEY, -- of instances
    backend     TEXT NOT NULL,
    ref         TEXT NOT NULL, -- the cloud's identifier; empty: not known yet
    region      TEXT NOT NULL,
    zone        TEXT NOT NULL,
    address     TEXT NOT NULL, -- of its SSH server; empty: not known yet
    username    TEXT NOT NULL,
    host_key    TEXT NOT NULL, -- pinned
    access      TEXT NOT NULL, -- sealed: the private keys
    created_at  BIGINT NOT NULL,
    ready_at    BIGINT NOT NULL, -- when it could run replicas for the first time; 0: not yet
    health      TEXT NOT NULL -- JSON: the latest check
);
CREATE INDEX rented_hosts_backend ON rented_hosts (backend);

CREATE TABLE cloud_leftovers (
    backend      TEXT NOT NULL,
    kind         TEXT NOT NULL,
    region       TEXT NOT NULL,
    ref          TEXT NOT NULL,
    detail       TEXT NOT NULL,
    first_seen   BIGINT NOT NULL,
    last_seen    BIGINT NOT NULL,
    removed_at   BIGINT NOT NULL, -- when its removal was requested last; 0: not yet
    last_error   TEXT NOT NULL,
    PRIMARY KEY (backend, kind, region, ref)
);

-- +goose Down
DROP TABLE cloud_leftovers;
DROP TABLE rented_hosts;
