-- Rented instances that are empty, silent or gone from their backend's list.

-- +goose Up
ALTER TABLE instances ADD COLUMN idle_time      BIGINT NOT NULL DEFAULT 300000000; -- microseconds that it may be empty; negative: for ever
ALTER TABLE instances ADD COLUMN empty_since    BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN unlisted_since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN silent_since   BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN checked_at     BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE instances DROP COLUMN checked_at;
ALTER TABLE instances DROP COLUMN silent_since;
ALTER TABLE instances DROP COLUMN unlisted_since;
ALTER TABLE instances DROP COLUMN empty_since;
ALTER TABLE instances DROP COLUMN idle_time;
