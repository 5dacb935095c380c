-- Fleets of rented machines.

-- +goose Up
CREATE TABLE cloud_fleets (
    id          TEXT PRIMARY KEY REFERENCES fleets (id) ON DELETE CASCADE,
    profile     TEXT NOT NULL, -- JSON
    rounds      TEXT NOT NULL, -- JSON of dstack.FleetRounds
    version     BIGINT NOT NULL,
    live        BOOLEAN NOT NULL,
    due_at      BIGINT,
    touches     BIGINT NOT NULL,
    lease_owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
CREATE INDEX cloud_fleets_due ON cloud_fleets (due_at) WHERE live;

CREATE TABLE fleet_instances (
    instance_id TEXT PRIMARY KEY,
    fleet_id    TEXT NOT NULL REFERENCES fleets (id) ON DELETE CASCADE,
    num         BIGINT NOT NULL, -- the lowest that was free when it was requested
    created_at  BIGINT NOT NULL,
    clustered   BOOLEAN NOT NULL, -- it is close to the fleet's other machines
    draining    BOOLEAN NOT NULL,
    leaving     BOOLEAN NOT NULL,
    reason      TEXT NOT NULL -- why it leaves
);
CREATE INDEX fleet_instances_fleet ON fleet_instances (fleet_id);

-- +goose Down
DROP TABLE fleet_instances;
DROP TABLE cloud_fleets;
