-- The tokens with which processes join gateways, and the credentials of those that did.

-- +goose Up
CREATE TABLE gateway_tokens (
    token_hash TEXT PRIMARY KEY,
    gateway_id TEXT NOT NULL REFERENCES project_gateways (id) ON DELETE CASCADE,
    host_id    TEXT NOT NULL, -- the host of a fleet on which the server starts the process; empty: elsewhere
    username   TEXT NOT NULL, -- who made it
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    process    TEXT NOT NULL  -- that joined with it; empty: none yet
);

-- A row outlives its gateway: the process that has it is told that it may not serve any more.
CREATE TABLE gateway_credentials (
    credential_hash TEXT PRIMARY KEY,
    process         TEXT NOT NULL UNIQUE, -- as in gateway_process_reports
    gateway_id      TEXT NOT NULL,
    host_id         TEXT NOT NULL,
    name            TEXT NOT NULL, -- of its machine
    address         TEXT NOT NULL,
    joined_at       BIGINT NOT NULL,
    revoked_at      BIGINT NOT NULL -- 0: it may serve, if its gateway exists
);

-- +goose Down
DROP TABLE gateway_credentials;
DROP TABLE gateway_tokens;
