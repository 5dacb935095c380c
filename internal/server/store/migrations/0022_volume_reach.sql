-- Which machines of its backend can mount a volume that no single machine has.

-- +goose Up
CREATE TABLE volume_reach (
    volume_id TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    reach     TEXT NOT NULL -- JSON of dstack.Reach
);

-- +goose Down
DROP TABLE volume_reach;
