-- Gateways of projects, and how the processes that serve them are. The table
-- gateways is older: it has the load reports.

-- +goose Up
CREATE TABLE project_gateways (
    id            TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL REFERENCES projects (id), -- a project with gateways is not deleted
    name          TEXT NOT NULL,
    configuration TEXT NOT NULL, -- sealed
    domain        TEXT NOT NULL, -- lower case, without *. before it; empty: none
    plain         BOOLEAN NOT NULL, -- it has no certificate
    backend       TEXT NOT NULL,
    proxies       TEXT NOT NULL DEFAULT '', -- JSON: networks of trusted proxies; empty: those of the process
    username      TEXT NOT NULL, -- who applied it last
    created_at    BIGINT NOT NULL,
    applied_at    BIGINT NOT NULL,
    is_default    BOOLEAN NOT NULL,
    deleting      BOOLEAN NOT NULL,
    earlier       TEXT NOT NULL DEFAULT '', -- JSON: domains that it goes on serving for a while; empty: none
    problem       TEXT NOT NULL, -- why its processes cannot be started; empty: they can
    UNIQUE (project_id, name)
);
CREATE UNIQUE INDEX project_gateways_domain ON project_gateways (domain) WHERE domain <> '';
CREATE UNIQUE INDEX project_gateways_default ON project_gateways (project_id) WHERE is_default;

-- What the processes of gateways told last.
CREATE TABLE gateway_process_reports (
    gateway_id    TEXT NOT NULL REFERENCES project_gateways (id) ON DELETE CASCADE,
    process       TEXT NOT NULL, -- its name in load reports
    host          TEXT NOT NULL, -- the host of a fleet on which the server started it
    name          TEXT NOT NULL, -- of its machine
    version       TEXT NOT NULL, -- of its program
    address       TEXT NOT NULL,
    https_port    BIGINT NOT NULL, -- 0: it serves no TLS
    http_port     BIGINT NOT NULL,
    joined_at     BIGINT NOT NULL,
    seen_at       BIGINT NOT NULL,
    table_version BIGINT NOT NULL,
    certificates  TEXT NOT NULL, -- JSON
    problems      TEXT NOT NULL, -- JSON
    PRIMARY KEY (gateway_id, process)
);

-- +goose Down
DROP TABLE gateway_process_reports;
DROP TABLE project_gateways;
