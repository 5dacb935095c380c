-- What the database knows of volumes that are disks of a cloud.

-- +goose Up
CREATE TABLE volume_disks (
    volume_id TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    zone      TEXT NOT NULL,             -- whose machines can attach it
    price     DOUBLE PRECISION NOT NULL, -- dollars per month; 0: not known
    formatted BOOLEAN NOT NULL           -- it has got a file system: it is never formatted again
);

-- The machine that a disk is attached to, or is about to be. A disk is attached to one machine at a time.
CREATE TABLE volume_attachments (
    volume_id   TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    instance_id TEXT NOT NULL,
    ready       BOOLEAN NOT NULL, -- it is mounted there
    since       BIGINT NOT NULL
);

CREATE INDEX volume_attachments_instance ON volume_attachments (instance_id);

-- +goose Down
DROP TABLE volume_attachments;
DROP TABLE volume_disks;
