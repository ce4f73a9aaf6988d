-- What schema 0001 held: two projects, a changed view, a removed entity.
INSERT INTO virtualfs_revisions VALUES
 ('p', 1, '2026-01-01 00:00:00', 'ann', 'one'), ('p', 2, '2026-01-02 00:00:00', 'bob', 'two'),
 ('p', 3, '2026-01-03 00:00:00', 'bob', 'three'), ('q', 1, '2026-01-01 00:00:00', 'eve', 'other');
INSERT INTO virtualfs_objects VALUES
 ('p', 'entity', 'airport', 1, NULL, 1, 'fe', 'files',
  '{"name": "airport", "description": "", "owner": "", "tags": {}, "join_keys": {"origin": "string"}}', NULL),
 ('p', 'source', 'weather', 1, NULL, 1, 'fs', 'files',
  '{"name": "weather", "description": "", "owner": "", "tags": {}, "table": "weather", "query": null, "path": null, "warehouse": "default", "columns": {}, "event_timestamp": "seen", "created_timestamp": null, "timezone": "UTC", "availability_delay": null, "valid_from": null, "valid_to": null}', NULL),
 ('p', 'feature_view', 'weather', 1, 2, 1, 'f1', 'files', '{"name": "weather", "description": "by the hour", "owner": "", "tags": {}, "source": "weather", "entities": ["airport"], "features": [{"name": "temp", "expr": null, "dtype": null, "description": "", "tags": {}}], "ttl": null, "boundary": null, "online": true, "freshness": "1m"}', '{"name": "weather", "fingerprint": "f", "warehouse": "default", "entities": ["airport"], "join_keys": {"origin": "string"}, "rows_sql": "SELECT origin, seen, temp FROM weather", "columns": {"origin": "string", "seen": "timestamp", "temp": "int32"}, "features": [{"name": "temp", "sql": "\"temp\"", "dtype": "int32"}], "event_timestamp": "seen"}'),
 ('p', 'feature_view', 'weather', 2, NULL, 2, 'f2', 'files', '{"name": "weather", "description": "by the hour", "owner": "", "tags": {}, "source": "weather", "entities": ["airport"], "features": [{"name": "temp", "expr": null, "dtype": null, "description": "", "tags": {}}], "ttl": null, "boundary": null, "online": true, "freshness": "1m"}', '{"name": "weather", "fingerprint": "f", "warehouse": "default", "entities": ["airport"], "join_keys": {"origin": "string"}, "rows_sql": "SELECT origin, seen, temp FROM weather", "columns": {"origin": "string", "seen": "timestamp", "temp": "int32"}, "features": [{"name": "temp", "sql": "\"temp\"", "dtype": "int32"}], "event_timestamp": "seen"}'),
 ('p', 'entity', 'gone', 1, 3, 1, 'fg', 'files',
  '{"name": "gone", "description": "", "owner": "", "tags": {}, "join_keys": {"x": "string"}}', NULL),
 ('q', 'entity', 'e', 1, NULL, 1, 'fq', 'api',
  '{"name": "e", "description": "", "owner": "", "tags": {}, "join_keys": {"x": "string"}}', NULL);
