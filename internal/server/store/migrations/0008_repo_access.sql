-- How the server reads a git repository, for each user who registered it.

-- +goose Up
CREATE TABLE repo_access (
    project_id TEXT NOT NULL,
    repo       TEXT NOT NULL,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    access     TEXT NOT NULL, -- sealed: the URL, the token and the private key
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (project_id, repo, user_id),
    FOREIGN KEY (project_id, repo) REFERENCES repos (project_id, id) ON DELETE CASCADE
);

-- +goose Down
DROP TABLE repo_access;
