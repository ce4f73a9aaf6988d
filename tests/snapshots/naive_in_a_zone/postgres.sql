-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by sweep over times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at
SELECT
  "temp"
FROM (
SELECT
  "t13"."__row",
  "t13"."temp" AS "temp"
FROM (
  SELECT
    "t12"."__row",
    "t12"."__time",
    "t8"."__event",
    "t8"."__found",
    "t8"."origin",
    "t8"."number",
    "t8"."at",
    "t8"."made",
    "t8"."until",
    "t8"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "t12"."__row"
      ORDER BY HASH_RECORD_EXTENDED(
        ROW(
          "t8"."at",
          "t8"."made",
          "t8"."until",
          "t8"."temp"
        ),
        0
      ) DESC NULLS LAST
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "__rank"
  FROM (
    SELECT
      "t10"."__row",
      "t10"."__time",
      "t10"."__key_0",
      "t10"."__key_1",
      CASE
        WHEN "t10"."__position" IS NOT NULL
        THEN "t10"."__last"
        ELSE CAST(NULL AS TIMESTAMP(6))
      END AS "__at"
    FROM (
      SELECT
        "t9"."__key_0",
        "t9"."__key_1",
        "t9"."__position",
        "t9"."__side",
        "t9"."__row",
        "t9"."__time",
        MAX("t9"."__at") OVER (
          PARTITION BY "t9"."__key_0", "t9"."__key_1"
          ORDER BY "t9"."__position" ASC, "t9"."__side" ASC
          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS "__last"
      FROM (
        SELECT
          *
        FROM (
          SELECT
            "t5"."__key_0",
            "t5"."__key_1",
            "t5"."__at" AS "__position",
            "t5"."__at",
            0 AS "__side",
            CAST(NULL AS BIGINT) AS "__row",
            CAST(NULL AS TIMESTAMP(6)) AS "__time"
          FROM (
            SELECT
              "t2"."origin",
              "t2"."number",
              "t2"."at",
              "t2"."made",
              "t2"."until",
              "t2"."temp",
              "t2"."origin" AS "__key_0",
              "t2"."number" AS "__key_1",
              TIMEZONE('UTC', TIMEZONE('America/New_York', "t2"."at")) AS "__event",
              TIMEZONE('UTC', TIMEZONE('America/New_York', "t2"."at")) AS "__at",
              TRUE AS "__found"
            FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "t2"
          ) AS "t5"
          WHERE
            "t5"."__key_0" IS NOT NULL
            AND "t5"."__key_1" IS NOT NULL
            AND "t5"."__event" IS NOT NULL
        ) AS "t7"
        UNION ALL
        SELECT
          *
        FROM (
          SELECT
            "t1"."origin" AS "__key_0",
            "t1"."number" AS "__key_1",
            "t1"."__time" AS "__position",
            CAST(NULL AS TIMESTAMP(6)) AS "__at",
            1 AS "__side",
            "t1"."__row",
            "t1"."__time"
          FROM "__virtualfs_spine" AS "t1"
        ) AS "t3"
      ) AS "t9"
    ) AS "t10"
    WHERE
      "t10"."__side" = 1
  ) AS "t12"
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        "t0"."origin",
        "t0"."number",
        "t0"."at",
        "t0"."made",
        "t0"."until",
        "t0"."temp",
        "t0"."origin" AS "__key_0",
        "t0"."number" AS "__key_1",
        TIMEZONE('UTC', TIMEZONE('America/New_York', "t0"."at")) AS "__event",
        TIMEZONE('UTC', TIMEZONE('America/New_York', "t0"."at")) AS "__at",
        TRUE AS "__found"
      FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "t0"
    ) AS "t4"
    WHERE
      "t4"."__key_0" IS NOT NULL
      AND "t4"."__key_1" IS NOT NULL
      AND "t4"."__event" IS NOT NULL
  ) AS "t8"
    ON "t12"."__key_0" = "t8"."__key_0"
    AND "t12"."__key_1" = "t8"."__key_1"
    AND "t12"."__at" = "t8"."__at"
) AS "t13"
WHERE
  "t13"."__rank" = 0
) AS "answer"
ORDER BY
  "__row" ASC;
