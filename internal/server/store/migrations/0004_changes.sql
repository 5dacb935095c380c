-- How often anything was written that a route table is made of: who finds it
-- unchanged need not read the rest.

-- +goose Up
ALTER TABLE installation ADD COLUMN changes BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE installation DROP COLUMN changes;
