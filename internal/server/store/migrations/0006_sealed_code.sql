-- Uploaded code, sealed. Open moves the chunks of earlier versions, which are in clear, from code_chunks to this table.

-- +goose Up
CREATE TABLE sealed_chunks (
    code_id TEXT NOT NULL REFERENCES codes (id) ON DELETE CASCADE,
    num     BIGINT NOT NULL,
    data    BYTEA NOT NULL,
    PRIMARY KEY (code_id, num)
);

-- +goose Down
DELETE FROM codes WHERE id IN (SELECT code_id FROM sealed_chunks); -- earlier versions cannot read it
DROP TABLE sealed_chunks;
