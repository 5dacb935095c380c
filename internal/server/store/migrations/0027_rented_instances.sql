-- What is known of rented machines alone.

-- +goose Up
CREATE TABLE rented_instances (
    instance_id   TEXT PRIMARY KEY,
    project_id    TEXT NOT NULL, -- that it was rented for; empty: for a fleet
    taken_back_at BIGINT NOT NULL DEFAULT 0 -- when its backend takes it back; 0: not announced
);
CREATE INDEX rented_instances_by_project ON rented_instances (project_id);

-- +goose Down
DROP TABLE rented_instances;
