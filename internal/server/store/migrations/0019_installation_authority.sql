-- The certificate authority by which gateways and servers know the servers of this installation.

-- +goose Up
CREATE TABLE installation_authority (
    one     BIGINT PRIMARY KEY CHECK (one = 1),
    sealed  TEXT NOT NULL -- its certificate and key, sealed
);

-- +goose Down
DROP TABLE installation_authority;
