ltrim(s, 'A')
1.5e3
n
mod(5.5, 2)
0x1F
x'AB'
date(seen)
datetime(seen, '+1 day')
strftime('%Y-%m', seen)
julianday(seen)
strftime('%w', seen)
date(seen, 'start of month', '-1 day')
time(seen)
unixepoch(seen)
s GLOB 'A*'
json_extract(j, '$.a.b')
j ->> '$.c[0]'
j -> 'a'
json_array_length(j, '$.c')
json_valid(j)
json_type(j, '$.a')
iif(n > 0, 'up', 'down')
ifnull(x, 1)
max(n, 0)
min(n, 0, 7)
instr(mail, '@')
printf('%d%%', n)
format('%.2f', x)
hex(s)
quote(s)
typeof(x)
unicode(s)
char(65, 66)
n / 2
n << 1
~n
round(x, 1)
n IS 0
n IS NOT 0
x IS TRUE
+n
n == 0
n != 0
`n` + 1
[n] + 1
s COLLATE NOCASE = 'abc DEF'
substr(mail, -3)
ltrim(s, 'AB') 
CAST(x AS TEXT)
CAST(s AS INTEGER)
likelihood(n > 0, 0.5)
nullif(s, '')
pi() > 3
log10(abs(n) + 1)
degrees(x)
json_object('n', n)
json_array(n, x)
json_quote(s)
n BETWEEN 0 AND 41
CASE WHEN b THEN 'yes' ELSE 'no' END
s IN ('', 'ABC def')
n NOTNULL
