n + 1
n - 1
n * 2
-n
abs(n)
n > 0
n >= 0 AND n < 40
n IN (0, 41)
n NOT IN (1, 2)
n BETWEEN -7 AND 0
n IS NULL
n IS NOT NULL
NOT (n = 0)
n = 0 OR x > 1
n <> 0
CASE WHEN n > 0 THEN 'up' WHEN n < 0 THEN 'down' ELSE 'flat' END
CASE n WHEN 0 THEN 1 END
coalesce(x, 0.0)
nullif(n, 0)
upper(s)
lower(s)
length(mail)
trim(s)
replace(s, 'A', 'b')
substr(mail, 1, 3)
s || '!'
s LIKE 'ABC%'
mail LIKE '%50\%%' ESCAPE '\'
mail NOT LIKE '%@%'
round(x)
x / 2
x * x
cast(n AS text)
cast(x AS integer)
n % 4
(n + 1) * (n - 1)
coalesce(s, 'none') || ' - ' || mail
rtrim(s, 'f')
n = -7 AND s = 'ABC def'
'it''s'
'-- no comment'
'a;b'
'/* nor this */'
n /* inside */ + 1
n + 1 -- seen the end
 n  +   1 
n + 1;
'50%'
'{braces}'
':colon'
'$1'
'?'
1e-3
.5
mail = 'it''s 50% - $1 ? :x {y}'
'日本' || mail
exp(x)
sqrt(abs(x))
ln(x + 1)
power(n, 2)
floor(x)
ceil(x)
sign(n)
coalesce(n, 0) + coalesce(x, 0)
CASE WHEN b THEN n ELSE -n END
N + 1
"n" + 1
n & 3
NOT b
trunc(x)
