-- The secrets of projects. A value is kept while a replica or a revision that can
-- be returned to needs it; the highest version is the present value.

-- +goose Up
CREATE TABLE secrets (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    version    BIGINT NOT NULL,
    id         TEXT NOT NULL, -- the same for all versions
    value      TEXT NOT NULL, -- sealed
    username   TEXT NOT NULL, -- who set it
    at         BIGINT NOT NULL,
    PRIMARY KEY (project_id, name, version)
);

-- +goose Down
DROP TABLE secrets;
