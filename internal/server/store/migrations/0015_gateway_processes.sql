-- Processes that serve gateways, and the tokens with which they join.

-- +goose Up
CREATE TABLE gateway_tokens (
    token_hash TEXT PRIMARY KEY,
    gateway_id TEXT NOT NULL,
    host_id    TEXT NOT NULL, -- the host of a fleet on which the server starts the process; empty: elsewhere
    username   TEXT NOT NULL, -- who made it
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    process_id TEXT NOT NULL  -- that joined with it; empty: none yet
);

-- A process whose gateway is gone is told so, and ends. The row stays for that.
CREATE TABLE gateway_processes (
    id              TEXT PRIMARY KEY,
    gateway_id      TEXT NOT NULL,
    host_id         TEXT NOT NULL,
    credential_hash TEXT NOT NULL UNIQUE,
    name            TEXT NOT NULL,
    version         TEXT NOT NULL,
    machine         TEXT NOT NULL,
    address         TEXT NOT NULL,
    joined_at       BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL,
    removed_at      BIGINT NOT NULL, -- 0: it may serve
    table_version   BIGINT NOT NULL,
    status          TEXT NOT NULL    -- JSON: certificates, problems
);
CREATE INDEX gateway_processes_gateway ON gateway_processes (gateway_id);

-- +goose Down
DROP TABLE gateway_processes;
DROP TABLE gateway_tokens;
