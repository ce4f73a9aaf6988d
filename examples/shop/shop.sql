-- A small shop, as a PostgreSQL database that nobody prepared for features. The numbers are made up
-- by hashing row numbers, so that every load gives the same rows.

CREATE TABLE customers (
    id bigint PRIMARY KEY,
    email text,
    country text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON TABLE customers IS 'Customers as they are today; rows are written over.';
COMMENT ON COLUMN customers.country IS 'ISO country of residence';

CREATE TABLE customer_plans (
    customer_id bigint NOT NULL REFERENCES customers (id),
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    plan text NOT NULL,
    PRIMARY KEY (customer_id, valid_from)
);
COMMENT ON TABLE customer_plans IS 'Which plan a customer was on, from when until when.';

CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers (id),
    ordered_at timestamp NOT NULL,
    created_at timestamp NOT NULL,
    total numeric(10, 2) NOT NULL,
    items int NOT NULL,
    returned boolean NOT NULL
);
COMMENT ON TABLE orders IS 'Every order; returned is filled in two weeks later.';
COMMENT ON COLUMN orders.total IS 'Euros, with tax';

CREATE TABLE tickets (
    customer_id bigint NOT NULL REFERENCES customers (id),
    opened_at timestamptz NOT NULL,
    severity int NOT NULL,
    topic text NOT NULL
);
COMMENT ON COLUMN tickets.severity IS '1 is a question, 5 a catastrophe';

CREATE FUNCTION pg_temp.draw(kind text, number bigint, below int) RETURNS int
LANGUAGE sql IMMUTABLE
AS $$ SELECT mod(hashtextextended(kind || number, 0) & 2147483647, below)::int $$;

INSERT INTO customers
SELECT i, 'customer' || i || '@example.com', (ARRAY['DE', 'FR', 'IT', 'ES'])[1 + pg_temp.draw('c', i, 4)],
       timestamptz '2023-12-01 00:00Z', timestamptz '2024-12-31 00:00Z'
FROM generate_series(1, 1500) AS i;

INSERT INTO customer_plans
SELECT i, timestamptz '2023-12-01 00:00Z',
       CASE WHEN i % 3 = 0 THEN timestamptz '2024-06-01 00:00Z' + pg_temp.draw('p', i, 90) * interval '24 hours' END,
       (ARRAY['free', 'basic', 'pro'])[1 + pg_temp.draw('q', i, 3)]
FROM generate_series(1, 1500) AS i;
INSERT INTO customer_plans
SELECT customer_id, valid_to, NULL, 'pro' FROM customer_plans WHERE valid_to IS NOT NULL;

INSERT INTO tickets
SELECT 1 + pg_temp.draw('t', i, 1500),
       timestamptz '2024-01-01 00:00Z' + pg_temp.draw('o', i, 525600) * interval '1 minute',
       1 + pg_temp.draw('s', i, 5), (ARRAY['delivery', 'quality', 'price'])[1 + pg_temp.draw('z', i, 3)]
FROM generate_series(1, 30000) AS i;

CREATE INDEX ON tickets (customer_id, opened_at);
ANALYZE tickets;

-- Who had a bad ticket in the month before is likelier to send an order back.
INSERT INTO orders
SELECT i, o.customer_id, o.at, o.at + interval '3 minutes', o.total, o.items,
       pg_temp.draw('r', i, 100) < 4 + 14 * coalesce((
           SELECT t.severity FROM tickets AS t
           WHERE t.customer_id = o.customer_id
             AND t.opened_at <= o.at AT TIME ZONE 'Europe/Berlin'
             AND t.opened_at > (o.at AT TIME ZONE 'Europe/Berlin') - interval '720 hours'
           ORDER BY t.opened_at DESC LIMIT 1), 0)
FROM (
    SELECT i, 1 + pg_temp.draw('u', i, 1500) AS customer_id,
           timestamp '2024-02-01' + pg_temp.draw('a', i, 475200) * interval '1 minute' AS at,
           (500 + pg_temp.draw('e', i, 20000)) / 100.0 AS total, 1 + pg_temp.draw('n', i, 6) AS items
    FROM generate_series(1, 12000) AS i OFFSET 0
) AS o (i, customer_id, at, total, items);

CREATE INDEX ON orders (customer_id, ordered_at, created_at);
ANALYZE;
