NULL IS NULL
n IS DISTINCT FROM 0
concat(s, '-', mail)
date_trunc('day', tz, 'America/New_York')
date_trunc('hour', seen)
extract(epoch FROM seen)
day + 1
tz + interval '1 day ago'
tz + interval '.5 day'
tz + interval '1 mon -1 day'
seen - interval '90 min'
tz AT TIME ZONE 'Europe/Berlin'
date_part('isodow', seen)
to_char(seen, 'YYYY-MM-DD HH24')
age(seen, seen)
to_timestamp('2024', 'YYYY')
make_interval(days => n)
seen::date
seen < timestamp '2024-06-01'
date_bin('15 min', seen, timestamp '2000-01-01')
justify_hours(interval '27 hours')
isfinite(seen)
regexp_like(s, 'abc', 'i')
regexp_match(mail, '^(\w+)@')
regexp_replace(s, '[a-z]', '_', 'g')
s ~ '^A'
s ~* 'abc'
s !~ 'x'
s ILIKE 'abc%'
mail SIMILAR TO '%@%'
regexp_count(s, '[A-Z]')
s ^@ 'A'
substring(mail FROM 2 FOR 3)
substring(mail FROM '[a-z]+')
position('@' IN mail)
overlay(s PLACING 'x' FROM 1)
trim(BOTH 'A' FROM s)
split_part(mail, '@', 2)
left(mail, 2)
right(mail, -1)
initcap(s)
md5(s)
j->>'a'
j->'a'->>'b'
j #>> '{a,b}'
j ? 'a'
j ?| array['a', 'z']
j ?& array['a']
j @> '{"c": [1]}'
jsonb_contains(j, '{"c": [2]}')
jsonb_array_length(j->'c')
j @? '$.a'
(j->'a'->>'b')::int
jsonb_path_exists(j, '$.c[*] ? (@ > 1)')
jsonb_typeof(j->'c')
jsonb_build_object('n', n)
to_jsonb(l)
l[1]
l[1:2]
array_length(l, 1)
l @> array[1]
2 = ANY (l)
0 < ALL (l)
cardinality(l)
l || 4
array_position(l, 1)
array_to_string(l, ',')
array_remove(l, 1)
array[n, 1]
ARRAY[x, 2.0]
greatest(n, 0)
least(n, 0)
n::float8 / 2
x::numeric(10, 2)
d * 2
d::float8
div(n, 2)
n # 1
n << 1
|/ abs(x)
@ n
mod(n, 4)
round(d, 1)
width_bucket(x, 0, 5, 5)
cbrt(x)
format('%s: %s', s, n)
format('%1$s%%', n)
concat_ws('-', s, mail)
lpad(s, 9, '*')
reverse(s)
E'a\'b\\c'
$$dollar ' quoted$$
$tag$ it's $tag$
b IS NOT TRUE
n::text COLLATE "C" < '5'
(n, x) IS NULL
ROW(n, s) = ROW(0, '')
n NOT BETWEEN 0 AND 5
num_nonnulls(n, x)
CASE WHEN s IS NULL THEN 'x' ELSE s END
translate(s, 'AB', 'ab')
ascii(s)
chr(65)
to_hex(n)
string_to_array(mail, '@')
strpos(mail, '@')
starts_with(s, 'A')
quote_literal(s)
encode(s::bytea, 'hex')
date '2024-01-01' + n
day - date '2024-01-01'
(seen, interval '1 day') OVERLAPS (seen, interval '2 days')
make_date(2024, 1, 2)
n::boolean
CAST(x AS numeric)
numeric '1.50'
int4range(1, 5) @> n
hashtext(s) % 7
