-- For psql, after pgbench: its balances must agree, and larger queries give the same on both sides.
\set ON_ERROR_STOP on
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
    (SELECT sum(tbalance) FROM pgbench_tellers), sum(delta), count(*) FROM pgbench_history;
CREATE TABLE item AS SELECT n AS id, (n * 7919) % 997 AS shelf, md5(n::text) AS name,
    jsonb_build_object('id', n, 'tags', jsonb_build_array(n % 7, n % 11, md5((n % 13)::text))) AS body
    FROM generate_series(1, 40000) n;
CREATE INDEX ON item (name);
CREATE INDEX ON item USING gin (body);
ANALYZE item;
SELECT count(*), md5(string_agg(name, ',' ORDER BY name)) FROM item;
SELECT body -> 'tags' ->> 2, count(*), sum(length(body::text)) FROM item GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM item WHERE body @> '{"tags": [3]}';
SELECT shelf, rank() OVER (ORDER BY count(*) DESC, shelf), max(name) FROM item GROUP BY shelf ORDER BY 2 LIMIT 10;
SELECT md5(string_agg(regexp_replace(a.name || b.name, '([0-9]+)([a-f]+)', '\2-\1', 'g'), '' ORDER BY a.id, b.id))
    FROM item a JOIN item b ON b.shelf = a.shelf AND b.id BETWEEN a.id - 5000 AND a.id WHERE a.id % 9 = 0;
SET jit_above_cost = 0;
SET jit_optimize_above_cost = 0;
SELECT sum(shelf * 2 + id), count(*) FILTER (WHERE name > 'a') FROM item WHERE length(name) = 32 AND id % 3 < 2;
DO $$
DECLARE
    texts text[] := '{}';
    length integer := 0;
BEGIN
    FOR i IN 1..3000 LOOP
        texts := texts || repeat(chr(97 + i % 26), i % 50);
    END LOOP;
    SELECT sum(length(t)) INTO length FROM unnest(texts) t;
    ASSERT length = 73500, length::text;
END $$;
