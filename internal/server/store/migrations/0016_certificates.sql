-- Certificates of gateways, their keys and accounts, and the locks of those who obtain them.

-- +goose Up
CREATE TABLE certificates (
    name  TEXT PRIMARY KEY, -- a path such as domains/example.com/acme/…
    value TEXT NOT NULL, -- sealed
    at    BIGINT NOT NULL -- when it was written last
);

CREATE TABLE certificate_locks (
    name  TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL -- it ends by itself
);

-- +goose Down
DROP TABLE certificate_locks;
DROP TABLE certificates;
