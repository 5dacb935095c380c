-- What rented machines cost. Rows outlive instances, runs and projects.

-- +goose Up
CREATE TABLE rentals (
    instance_id  TEXT PRIMARY KEY,
    project_id   TEXT NOT NULL,
    project      TEXT NOT NULL, -- its name
    fleet        TEXT NOT NULL, -- name of the cloud fleet that it was rented for; empty: none
    backend      TEXT NOT NULL,
    region       TEXT NOT NULL,
    zone         TEXT NOT NULL,
    type         TEXT NOT NULL,
    spot         BOOLEAN NOT NULL,
    price        DOUBLE PRECISION NOT NULL, -- dollars per hour
    requested_at BIGINT NOT NULL,
    seen_at      BIGINT NOT NULL, -- when the backend listed the machine first; 0: not yet
    ended_at     BIGINT NOT NULL  -- when it did not list it any more; 0: it may cost money
);
CREATE INDEX rentals_by_project ON rentals (project_id, ended_at);

-- Which run had a rented machine, and when.
CREATE TABLE rental_uses (
    instance_id TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    run         TEXT NOT NULL, -- its name
    username    TEXT NOT NULL,
    since       BIGINT NOT NULL,
    until       BIGINT NOT NULL, -- 0: it still has it
    PRIMARY KEY (instance_id, since, run_id)
);

-- +goose Down
DROP TABLE rental_uses;
DROP TABLE rentals;
