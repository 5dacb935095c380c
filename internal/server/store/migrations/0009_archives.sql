-- Uploaded files and folders that configurations name, sealed. They belong to users: the published client uploads
-- them before it names a project.

-- +goose Up
CREATE TABLE archives (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL, -- also of a user who was deleted, while a run needs it
    hash       TEXT NOT NULL,
    bytes      BIGINT NOT NULL,
    chunks     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL, -- uploaded, looked up or submitted
    UNIQUE (user_id, hash)
);

CREATE TABLE archive_chunks (
    archive_id TEXT NOT NULL REFERENCES archives (id) ON DELETE CASCADE,
    num        BIGINT NOT NULL,
    data       BYTEA NOT NULL,
    PRIMARY KEY (archive_id, num)
);

CREATE TABLE run_archives (
    run_id     TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    archive_id TEXT NOT NULL REFERENCES archives (id) ON DELETE CASCADE,
    PRIMARY KEY (run_id, archive_id)
);
CREATE INDEX run_archives_by_archive ON run_archives (archive_id);

-- +goose Down
DROP TABLE run_archives;
DROP TABLE archive_chunks;
DROP TABLE archives;
