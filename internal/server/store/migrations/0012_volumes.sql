-- Volumes of projects. A row exists until the volume and its data are deleted.

-- +goose Up
CREATE TABLE volumes (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id), -- a project with volumes is not deleted
    name          TEXT NOT NULL,
    username      TEXT NOT NULL, -- who created it
    configuration TEXT NOT NULL, -- JSON
    backend       TEXT NOT NULL, -- key of the configured backend
    instance_id   TEXT NOT NULL, -- the owned machine that has it
    machine       TEXT NOT NULL, -- its name
    fleet         TEXT NOT NULL,
    host          TEXT NOT NULL, -- the only installation that can reach the machine; empty: every server can
    region        TEXT NOT NULL,
    size_mib      BIGINT NOT NULL,
    external_id   TEXT NOT NULL,
    is_external   BOOLEAN NOT NULL,
    status        TEXT NOT NULL,
    reason        TEXT NOT NULL,
    warning       TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    since         BIGINT NOT NULL,
    fails         BIGINT NOT NULL,
    version       BIGINT NOT NULL,
    live          BOOLEAN NOT NULL,
    due_at        BIGINT,
    touches       BIGINT NOT NULL,
    lease_owner   TEXT NOT NULL,
    lease_until   BIGINT NOT NULL,
    UNIQUE (project_id, name)
);

CREATE INDEX volumes_due ON volumes (due_at) WHERE live;

-- +goose Down
DROP TABLE volumes;
