-- Keys for callers: they call services and models of a project, never the API.

-- +goose Up
CREATE TABLE caller_keys (
    id         TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE, -- SHA-256, hexadecimal
    services   TEXT NOT NULL, -- JSON: names of runs
    models     TEXT NOT NULL, -- JSON: names of models
    rps        DOUBLE PRECISION NOT NULL, -- 0: no limit
    expires_at BIGINT NOT NULL, -- 0: never
    revoked_at BIGINT NOT NULL, -- 0: it is not
    revoked_by TEXT NOT NULL,
    username   TEXT NOT NULL, -- who created it
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX caller_keys_name ON caller_keys (project_id, name) WHERE revoked_at = 0;

-- How often a gateway saw a key. last_… are its counters as it told them last: they
-- begin anew when it does.
CREATE TABLE caller_key_counts (
    key_id        TEXT NOT NULL REFERENCES caller_keys (id) ON DELETE CASCADE,
    gateway       TEXT NOT NULL,
    requests      BIGINT NOT NULL,
    refused       BIGINT NOT NULL,
    last_requests BIGINT NOT NULL,
    last_refused  BIGINT NOT NULL,
    used_at       BIGINT NOT NULL,
    PRIMARY KEY (key_id, gateway)
);

-- What the callers of a gateway ask for of limits that all gateways count together.
CREATE TABLE limit_demands (
    gateway TEXT PRIMARY KEY REFERENCES gateways (name) ON DELETE CASCADE,
    demands TEXT NOT NULL -- JSON
);

-- +goose Down
DROP TABLE limit_demands;
DROP TABLE caller_key_counts;
DROP TABLE caller_keys;
