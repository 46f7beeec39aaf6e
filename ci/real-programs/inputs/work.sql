-- A database in memory: inserts, indices, joins, groups, text functions, updates and deletes.
.bail on
PRAGMA temp_store = MEMORY;
CREATE TABLE item(id INTEGER PRIMARY KEY, shelf INTEGER, name TEXT, body TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
INSERT INTO item SELECT i, (i * 7919) % 997, printf('item-%d-%x', (i * 104729) % 120011, i * i),
    substr('abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz', 1 + i % 20, i % 57)
    FROM n;
CREATE INDEX by_name ON item(name);
CREATE INDEX by_shelf ON item(shelf, name);
CREATE TABLE shelf AS SELECT shelf AS id, count(*) AS items, sum(length(body)) AS bytes FROM item GROUP BY shelf;
SELECT count(*), sum(items), sum(bytes), max(items) FROM shelf;
SELECT a.name, b.name, length(group_concat(b.body, '')) FROM item a JOIN item b ON b.shelf = a.shelf
    WHERE a.id % 4001 = 0 GROUP BY a.id ORDER BY a.name LIMIT 20;
SELECT substr(name, 1, 7) AS prefix, count(DISTINCT body), sum(length(upper(body) || name)) FROM item
    GROUP BY prefix ORDER BY 2 DESC, 1 LIMIT 15;
UPDATE item SET body = replace(body, 'm', 'MMMM') || name WHERE shelf % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
SELECT count(*), sum(length(body)), min(name), max(name) FROM item;
SELECT sum(json_array_length(j)), sum(length(j)) FROM (SELECT json_group_array(name) AS j FROM item GROUP BY shelf);
SELECT shelf, rank() OVER (ORDER BY sum(length(body)) DESC, shelf) FROM item GROUP BY shelf ORDER BY 2 LIMIT 10;
PRAGMA integrity_check;
