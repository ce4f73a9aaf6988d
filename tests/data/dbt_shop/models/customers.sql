select id as customer_id, country, email, updated_at from {{ ref('raw_customers') }}
