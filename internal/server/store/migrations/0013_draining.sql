-- Machines whose replicas are placed elsewhere.

-- +goose Up
ALTER TABLE instances ADD COLUMN draining BOOLEAN NOT NULL DEFAULT FALSE;

-- +goose Down
ALTER TABLE instances DROP COLUMN draining;
