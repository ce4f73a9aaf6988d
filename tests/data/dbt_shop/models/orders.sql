select id as order_id, customer_id, ordered_at, loaded_at, cast(amount as double) as amount, status from {{ ref('raw_orders') }}
