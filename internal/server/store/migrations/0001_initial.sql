-- The same text runs on SQLite and on PostgreSQL. Times are microseconds
-- since 1970, UTC; 0 is "never". JSON is TEXT. due_at NULL: not due.

-- +goose Up
CREATE TABLE installation (
    one    BIGINT PRIMARY KEY CHECK (one = 1),
    name   TEXT NOT NULL,
    proof  TEXT NOT NULL -- a known word, sealed: shows that the key is the right one
);

CREATE TABLE users (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    global_role TEXT NOT NULL,
    email       TEXT NOT NULL,
    token_hash  TEXT NOT NULL UNIQUE,
    created_at  BIGINT NOT NULL
);

CREATE TABLE projects (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    name_lower TEXT NOT NULL UNIQUE,
    owner      TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL
);

CREATE TABLE members (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    PRIMARY KEY (project_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE repos (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    id         TEXT NOT NULL,
    info       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project_id, id)
);

CREATE TABLE codes (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    repo       TEXT NOT NULL,
    hash       TEXT NOT NULL,
    bytes      BIGINT NOT NULL,
    chunks     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project_id, repo, hash)
);

CREATE TABLE code_chunks (
    code_id TEXT NOT NULL REFERENCES codes (id) ON DELETE CASCADE,
    num     BIGINT NOT NULL,
    data    BYTEA NOT NULL,
    PRIMARY KEY (code_id, num)
);

CREATE TABLE runs (
    id           TEXT PRIMARY KEY,
    project_id   TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    username     TEXT NOT NULL,
    name         TEXT NOT NULL,
    repo         TEXT NOT NULL,
    spec         TEXT NOT NULL, -- sealed; the row's id belongs to the seal
    auth         BOOLEAN NOT NULL,
    model        TEXT NOT NULL,
    prefix       TEXT NOT NULL,
    revision     BIGINT NOT NULL,
    status       TEXT NOT NULL,
    reason       TEXT NOT NULL,
    ending       TEXT NOT NULL,
    stop         TEXT NOT NULL,
    submitted_at BIGINT NOT NULL,
    since        BIGINT NOT NULL,
    ready_at     BIGINT NOT NULL,
    finished_at  BIGINT NOT NULL,
    deleted      BOOLEAN NOT NULL,
    version      BIGINT NOT NULL,
    live         BOOLEAN NOT NULL, -- unfinished
    due_at       BIGINT,
    touches      BIGINT NOT NULL,
    lease_owner  TEXT NOT NULL,
    lease_until  BIGINT NOT NULL
);
CREATE UNIQUE INDEX runs_by_name ON runs (project_id, name) WHERE NOT deleted;
CREATE INDEX runs_by_time ON runs (submitted_at, id);
CREATE INDEX runs_due ON runs (due_at) WHERE live;

CREATE TABLE replicas (
    id           TEXT PRIMARY KEY,
    run_id       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    num          BIGINT NOT NULL,
    revision     BIGINT NOT NULL,
    status       TEXT NOT NULL,
    reason       TEXT NOT NULL,
    since        BIGINT NOT NULL,
    instance_id  TEXT NOT NULL,
    claim        TEXT NOT NULL,
    attempt_id   TEXT NOT NULL,
    attempt_num  BIGINT NOT NULL,
    attempt_at   BIGINT NOT NULL,
    crashes      BIGINT NOT NULL,
    crashed_at   BIGINT NOT NULL,
    backoff_at   BIGINT NOT NULL,
    grace        BOOLEAN NOT NULL,
    past         TEXT NOT NULL,
    submitted_at BIGINT NOT NULL,
    finished_at  BIGINT NOT NULL,
    version      BIGINT NOT NULL,
    live         BOOLEAN NOT NULL,
    due_at       BIGINT,
    touches      BIGINT NOT NULL,
    lease_owner  TEXT NOT NULL,
    lease_until  BIGINT NOT NULL
);
CREATE UNIQUE INDEX replicas_wanted ON replicas (run_id, revision, num) WHERE live;
CREATE INDEX replicas_by_run ON replicas (run_id);
CREATE INDEX replicas_by_instance ON replicas (instance_id) WHERE live;
CREATE INDEX replicas_due ON replicas (due_at) WHERE live;

-- Every attempt that can still be asked for, present and past.
CREATE TABLE attempts (
    attempt_id TEXT PRIMARY KEY,
    replica_id TEXT NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    num        BIGINT NOT NULL
);
CREATE INDEX attempts_by_replica ON attempts (replica_id, num);

CREATE TABLE instances (
    id          TEXT PRIMARY KEY,
    backend     TEXT NOT NULL,
    offer       TEXT NOT NULL,
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    since       BIGINT NOT NULL,
    host        TEXT NOT NULL,
    heard_at    BIGINT NOT NULL,
    last_fail   TEXT NOT NULL,
    fails       BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    live        BOOLEAN NOT NULL,
    due_at      BIGINT,
    touches     BIGINT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
CREATE INDEX instances_due ON instances (due_at) WHERE live;

-- What can be held by one replica only: "gpu:<id>", "port:<number>".
CREATE TABLE claims (
    instance_id TEXT NOT NULL,
    thing       TEXT NOT NULL,
    replica_id  TEXT NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    PRIMARY KEY (instance_id, thing)
);
CREATE INDEX claims_by_replica ON claims (replica_id);

CREATE TABLE reports (
    attempt_id  TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL,
    replica_id  TEXT NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    report      TEXT NOT NULL, -- without the time at which it was seen
    at          BIGINT NOT NULL
);
CREATE INDEX reports_by_instance ON reports (instance_id);
CREATE INDEX reports_by_replica ON reports (replica_id);

-- +goose Down
DROP TABLE reports;
DROP TABLE claims;
DROP TABLE instances;
DROP TABLE attempts;
DROP TABLE replicas;
DROP TABLE runs;
DROP TABLE code_chunks;
DROP TABLE codes;
DROP TABLE repos;
DROP TABLE members;
DROP TABLE projects;
DROP TABLE users;
DROP TABLE installation;
