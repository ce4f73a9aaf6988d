ltrim(s, 'A')
1.5e3
NULL IS NULL
n IS DISTINCT FROM 0
concat(s, '-', mail)
date_trunc('day', seen)
date_trunc('month', tz)
extract(dow FROM seen)
extract(epoch FROM seen)
date_part('hour', seen)
seen + INTERVAL '1.5 hours'
seen + INTERVAL 1 DAY
seen - INTERVAL '1 day 2 hours'
date_add(seen, to_days(n))
time_bucket(INTERVAL '1 day', tz, 'America/New_York')
seen::DATE
time_bucket(INTERVAL '15 minutes', seen)
date_diff('day', seen, TIMESTAMP '2025-01-01')
hour(seen)
strftime(seen, '%Y-%m-%d %H')
strptime('2024-01-02', '%Y-%m-%d')
timezone('Europe/Berlin', seen)
tz AT TIME ZONE 'America/New_York'
seen < TIMESTAMP '2024-06-01'
dayname(seen)
last_day(day)
age(TIMESTAMP '2025-01-01', seen)
make_date(2024, 1, 2)
epoch_ms(seen)
isodow(day)
monthname(day)
j->>'a'
j->'a'->>'b'
json_extract(j, '$.c[0]')
json_extract_string(j, '$.a.b')
j->>'$.a.b'
json_array_length(j, '$.c')
json_valid(j)
json_type(j, '$.a')
list_sort(l)
l[1]
l[-1]
l[1:2]
list_contains(l, 2)
list_transform(l, x -> x + 1)
list_transform(l, lambda x: x * n)
list_filter(l, x -> x > 1)
list_reduce(l, (a, c) -> a + c, 10)
list_sum(l)
len(l)
array_length(l)
list_aggregate(l, 'max')
[x, 1.0]
{'a': n, 'b': x}
pos.lat
pos['lon']
struct_extract(pos, 'lat')
map {'a': n}['a']
regexp_matches(mail, '^[a-z]+@')
regexp_extract(mail, '([a-z]+)@', 1)
regexp_replace(s, '[A-Z]', '_', 'g')
regexp_full_match(s, 'abc.*', 'i')
mail SIMILAR TO '.*@.*'
s ILIKE 'abc%'
s GLOB 'A*'
starts_with(s, 'A')
contains(mail, '@')
split_part(mail, '@', 2)
string_split(mail, '@')[1]
left(mail, 2)
right(mail, 2)
lpad(s, 9, '*')
reverse(s)
md5(s)
s[1:3]
mail.upper()
format('{}: {:.2f}', s, x)
printf('%d%%', n)
concat_ws('-', s, mail)
greatest(n, 0)
least(n, 0)
x::DECIMAL(10, 2)
try_cast(s AS INTEGER)
d * 2
d::DOUBLE
n // 2
n ** 2
n + 0
xor(n, 1)
x IS NULL OR isnan(x)
isfinite(x)
hash(s)
if(n > 0, 1, 2)
ifnull(x, 1)
CASE WHEN s IS NULL THEN 'x' ELSE s END
1_000
x'AB'::BLOB
e'a\nb'
$$dollar ' quoted$$
$tag$ it's $tag$
n::VARCHAR COLLATE NOCASE = '41'
b IS TRUE
DATE '2024-01-01' + n
(DATE '2024-01-01', n) IS NULL
n NOT BETWEEN 0 AND 5
chr(65)
ascii(s)
bit_count(n)
gcd(n, 14)
round(x, 1)
log10(x + 1)
radians(x)
week(seen)
quarter(seen)
list_apply(l, y -> y % 2 = 0)
list_position(l, 1)
array_to_string(l, ',')
unicode(s)
translate(s, 'AB', 'ab')
levenshtein(s, 'ABC')
jaccard(mail, 'ann')
url_encode(mail)
to_json(l)
bar(n, 0, 50)
encode(s)
