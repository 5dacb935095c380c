-- Groups of replicas. What was stored before belongs to the only group of a service without groups.

-- +goose Up
ALTER TABLE replicas ADD COLUMN replica_group TEXT NOT NULL DEFAULT '0';
ALTER TABLE runs ADD COLUMN group_counts TEXT NOT NULL DEFAULT ''; -- JSON: the parts of wanted, by group; empty: the service has no groups
ALTER TABLE events ADD COLUMN replica_group TEXT NOT NULL DEFAULT ''; -- empty: the event concerns no single group

-- +goose Down
ALTER TABLE events DROP COLUMN replica_group;
ALTER TABLE runs DROP COLUMN group_counts;
ALTER TABLE replicas DROP COLUMN replica_group;
