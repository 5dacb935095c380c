-- How a model's replicas are spoken to, and how its prompts are made.

-- +goose Up
ALTER TABLE runs ADD COLUMN format   TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN template TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE runs DROP COLUMN template;
ALTER TABLE runs DROP COLUMN format;
