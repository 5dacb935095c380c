-- Services that live: revisions, events, loads, and replicas that drain.

-- +goose Up
ALTER TABLE installation ADD COLUMN events BIGINT NOT NULL DEFAULT 0; -- the last event's number
ALTER TABLE installation ADD COLUMN drains BIGINT NOT NULL DEFAULT 0; -- how often replicas were told to drain

ALTER TABLE runs ADD COLUMN newest     BIGINT NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN shape      BIGINT NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN proven     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN wanted     BIGINT NOT NULL DEFAULT 1;
ALTER TABLE runs ADD COLUMN scaled_at  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN started_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN scales     BOOLEAN NOT NULL DEFAULT FALSE; -- replicas is a range
ALTER TABLE runs ADD COLUMN rules      TEXT NOT NULL DEFAULT '';       -- JSON of a route.Rules; empty: none
UPDATE runs SET newest = revision, shape = revision, scaled_at = submitted_at, wanted = 1;
UPDATE runs SET wanted = (SELECT COUNT(*) FROM replicas WHERE replicas.run_id = runs.id AND replicas.live AND replicas.revision = runs.revision)
    WHERE EXISTS (SELECT 1 FROM replicas WHERE replicas.run_id = runs.id AND replicas.live AND replicas.revision = runs.revision);
UPDATE runs SET due_at = 0 WHERE live; -- whatever is new is looked at

ALTER TABLE replicas ADD COLUMN shape    BIGINT NOT NULL DEFAULT 1;
ALTER TABLE replicas ADD COLUMN drain_by BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replicas ADD COLUMN drained  BIGINT NOT NULL DEFAULT 0; -- installation.drains when it was told to
ALTER TABLE replicas ADD COLUMN ready_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replicas ADD COLUMN blocked  BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE replicas SET shape = revision;
DROP INDEX replicas_wanted;
-- One that leaves does not keep its number from its successor.
CREATE UNIQUE INDEX replicas_wanted ON replicas (run_id, shape, num) WHERE live AND status <> 'draining' AND status <> 'terminating';
CREATE INDEX replicas_draining ON replicas (run_id) WHERE live AND status = 'draining';

CREATE TABLE revisions (
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    num         BIGINT NOT NULL,
    shape       BIGINT NOT NULL,
    spec        TEXT NOT NULL, -- sealed; the run's id belongs to the seal
    username    TEXT NOT NULL,
    at          BIGINT NOT NULL,
    brings_back BIGINT NOT NULL, -- an earlier revision; 0: none
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    replica     BIGINT NOT NULL,
    last_out    TEXT NOT NULL, -- JSON
    PRIMARY KEY (run_id, num)
);
INSERT INTO revisions (run_id, num, shape, spec, username, at, brings_back, status, reason, replica, last_out)
    SELECT id, revision, revision, spec, username, submitted_at, 0, CASE WHEN ready_at > 0 THEN 'ready' ELSE 'pending' END, '', 0, '[]' FROM runs;

-- They outlive their runs. Numbers are given in the order of commits.
CREATE TABLE events (
    id         BIGINT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    run_id     TEXT NOT NULL,
    run_name   TEXT NOT NULL,
    at         BIGINT NOT NULL,
    kind       TEXT NOT NULL,
    revision   BIGINT NOT NULL,
    replica    BIGINT, -- NULL: of the run as a whole
    was        TEXT NOT NULL,
    became     TEXT NOT NULL,
    username   TEXT NOT NULL,
    message    TEXT NOT NULL
);
CREATE INDEX events_by_run ON events (project_id, run_name, id);
CREATE INDEX events_by_time ON events (at);

-- Who counts requests, and what they told last.
CREATE TABLE gateways (
    name   TEXT PRIMARY KEY,
    drains BIGINT NOT NULL, -- installation.drains, as its route table knows it
    watched BIGINT NOT NULL, -- for how long it has counted, in microseconds
    at     BIGINT NOT NULL
);
CREATE TABLE counts (
    gateway TEXT NOT NULL REFERENCES gateways (name) ON DELETE CASCADE,
    run_id  TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    counted TEXT NOT NULL, -- JSON
    PRIMARY KEY (gateway, run_id)
);
CREATE INDEX counts_by_run ON counts (run_id);

-- +goose Down
DROP TABLE counts;
DROP TABLE gateways;
DROP TABLE events;
DROP TABLE revisions;
DROP INDEX replicas_draining;
DROP INDEX replicas_wanted;
CREATE UNIQUE INDEX replicas_wanted ON replicas (run_id, revision, num) WHERE live;
ALTER TABLE replicas DROP COLUMN blocked;
ALTER TABLE replicas DROP COLUMN ready_at;
ALTER TABLE replicas DROP COLUMN drained;
ALTER TABLE replicas DROP COLUMN drain_by;
ALTER TABLE replicas DROP COLUMN shape;
ALTER TABLE runs DROP COLUMN rules;
ALTER TABLE runs DROP COLUMN scales;
ALTER TABLE runs DROP COLUMN started_at;
ALTER TABLE runs DROP COLUMN scaled_at;
ALTER TABLE runs DROP COLUMN wanted;
ALTER TABLE runs DROP COLUMN proven;
ALTER TABLE runs DROP COLUMN shape;
ALTER TABLE runs DROP COLUMN newest;
ALTER TABLE installation DROP COLUMN drains;
ALTER TABLE installation DROP COLUMN events;
