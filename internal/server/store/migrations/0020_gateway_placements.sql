-- Processes of gateways that the server runs on hosts of fleets.

-- +goose Up
CREATE TABLE gateway_work (
    id          TEXT PRIMARY KEY REFERENCES project_gateways (id) ON DELETE CASCADE,
    version     BIGINT NOT NULL,
    live        BOOLEAN NOT NULL,
    due_at      BIGINT,
    touches     BIGINT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
CREATE INDEX gateway_work_due ON gateway_work (due_at) WHERE live;

CREATE TABLE gateway_placements (
    id              TEXT PRIMARY KEY,
    gateway_id      TEXT NOT NULL REFERENCES project_gateways (id),
    host_id         TEXT NOT NULL UNIQUE, -- two gateways would need the same ports
    host_name       TEXT NOT NULL,
    program         TEXT NOT NULL, -- SHA-256; empty: none was chosen yet
    program_version TEXT NOT NULL,
    program_owner   TEXT NOT NULL, -- the server that chose the program
    owner_seen_at   BIGINT NOT NULL,
    port            BIGINT NOT NULL, -- of the host's loopback interface, where the process reaches the server
    phase           TEXT NOT NULL,
    reason          TEXT NOT NULL,
    since           BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    failures        BIGINT NOT NULL,
    next_at         BIGINT NOT NULL,
    silent_since    BIGINT NOT NULL
);
CREATE INDEX gateway_placements_gateway ON gateway_placements (gateway_id);

-- +goose Down
DROP TABLE gateway_placements;
DROP TABLE gateway_work;
