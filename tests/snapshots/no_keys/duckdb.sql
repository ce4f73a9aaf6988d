-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time)

-- 2.
-- weather (draft) by native ASOF join of times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at
SELECT
  "temp"
FROM (
SELECT
  "t14"."__row",
  "t14"."temp" AS "temp"
FROM (
  SELECT
    "t13"."__row",
    "t13"."__time",
    "t9"."__event",
    "t9"."__found",
    "t9"."at",
    "t9"."made",
    "t9"."until",
    "t9"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "t13"."__row"
      ORDER BY HASH(
        "t9"."at",
        "t9"."made",
        "t9"."until",
        "t9"."temp"
      ) DESC
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "__rank"
  FROM (
    SELECT
      "t11"."__row",
      "t11"."__time",
      CASE
        WHEN "t11"."__bound" IS NOT NULL
        THEN "t11"."__at"
        ELSE CAST(NULL AS TIMESTAMP(6))
      END AS "__at"
    FROM (
      SELECT
        "t4"."__row",
        "t4"."__time",
        "t4"."__bound",
        "t10"."__at"
      FROM (
        SELECT
          "t1"."__row",
          "t1"."__time",
          "t1"."__time" AS "__bound"
        FROM "__virtualfs_spine" AS "t1"
      ) AS "t4"
      ASOF LEFT JOIN (
        SELECT
          "t6"."__at"
        FROM (
          SELECT
            "t2"."at",
            "t2"."made",
            "t2"."until",
            "t2"."temp",
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("t2"."at")),
              CAST("t2"."at" AS TIMESTAMP(6))
            ) AS "__event",
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("t2"."at")),
              CAST("t2"."at" AS TIMESTAMP(6))
            ) AS "__at",
            TRUE AS "__found"
          FROM (
SELECT "at", "made", "until", "temp" FROM "weather"
) AS "t2"
        ) AS "t6"
        WHERE
          "t6"."__event" IS NOT NULL
      ) AS "t10"
        ON "t4"."__bound" >= "t10"."__at"
    ) AS "t11"
  ) AS "t13"
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        "t0"."at",
        "t0"."made",
        "t0"."until",
        "t0"."temp",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("t0"."at")),
          CAST("t0"."at" AS TIMESTAMP(6))
        ) AS "__event",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("t0"."at")),
          CAST("t0"."at" AS TIMESTAMP(6))
        ) AS "__at",
        TRUE AS "__found"
      FROM (
SELECT "at", "made", "until", "temp" FROM "weather"
) AS "t0"
    ) AS "t5"
    WHERE
      "t5"."__event" IS NOT NULL
  ) AS "t9"
    ON "t13"."__at" = "t9"."__at"
) AS "t14"
WHERE
  "t14"."__rank" = 0
) AS "answer"
ORDER BY
  "__row" ASC;
