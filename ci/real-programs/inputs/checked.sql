-- For pgbench: rows put together and counted. A wrong sum is a division by zero, which ends pgbench with an error.
\set many random(1, 400)
\set shelf random(1, 50)
SELECT length(string_agg(md5((n * :shelf)::text), ',' ORDER BY n)) = 33 * :many - 1
    AND (jsonb_object_agg('key-' || n, repeat('x', n)) ->> ('key-' || :many)) = repeat('x', :many)
    AND sum(n) = :many * (:many + 1) / 2 AS good
    FROM generate_series(1, :many) n \gset
\if :good
\else
SELECT 1 / 0;
\endif
