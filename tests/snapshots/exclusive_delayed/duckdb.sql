-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by native ASOF join of times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at, known 1h later, strictly before the instant
SELECT
  "temp"
FROM (
SELECT
  "__virtualfs_t14"."__row",
  "__virtualfs_t14"."temp" AS "temp"
FROM (
  SELECT
    "__virtualfs_t13"."__row",
    "__virtualfs_t13"."__time",
    "__virtualfs_t9"."__event",
    "__virtualfs_t9"."__found",
    "__virtualfs_t9"."origin",
    "__virtualfs_t9"."number",
    "__virtualfs_t9"."at",
    "__virtualfs_t9"."made",
    "__virtualfs_t9"."until",
    "__virtualfs_t9"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "__virtualfs_t13"."__row"
      ORDER BY HASH(
        "__virtualfs_t9"."at",
        "__virtualfs_t9"."made",
        "__virtualfs_t9"."until",
        "__virtualfs_t9"."temp"
      ) DESC
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "__rank"
  FROM (
    SELECT
      "__virtualfs_t11"."__row",
      "__virtualfs_t11"."__time",
      "__virtualfs_t11"."__key_0",
      "__virtualfs_t11"."__key_1",
      CASE
        WHEN "__virtualfs_t11"."__bound" IS NOT NULL
        THEN "__virtualfs_t11"."__at"
        ELSE CAST(NULL AS TIMESTAMP(6))
      END AS "__at"
    FROM (
      SELECT
        "__virtualfs_t4"."__row",
        "__virtualfs_t4"."__time",
        "__virtualfs_t4"."__bound",
        "__virtualfs_t4"."__key_0",
        "__virtualfs_t4"."__key_1",
        "__virtualfs_t10"."__at"
      FROM (
        SELECT
          "__virtualfs_t1"."__row",
          "__virtualfs_t1"."__time",
          "__virtualfs_t1"."origin" AS "__key_0",
          "__virtualfs_t1"."number" AS "__key_1",
          "__virtualfs_t1"."__time" - INTERVAL '3600000001' MICROSECOND AS "__bound"
        FROM "__virtualfs_spine" AS "__virtualfs_t1"
      ) AS "__virtualfs_t4"
      ASOF LEFT JOIN (
        SELECT
          "__virtualfs_t6"."__key_0",
          "__virtualfs_t6"."__key_1",
          "__virtualfs_t6"."__at"
        FROM (
          SELECT
            "__virtualfs_t2"."origin",
            "__virtualfs_t2"."number",
            "__virtualfs_t2"."at",
            "__virtualfs_t2"."made",
            "__virtualfs_t2"."until",
            "__virtualfs_t2"."temp",
            "__virtualfs_t2"."origin" AS "__key_0",
            "__virtualfs_t2"."number" AS "__key_1",
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."at")),
              CAST("__virtualfs_t2"."at" AS TIMESTAMP(6))
            ) AS "__event",
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."at")),
              CAST("__virtualfs_t2"."at" AS TIMESTAMP(6))
            ) AS "__at",
            TRUE AS "__found"
          FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "__virtualfs_t2"
        ) AS "__virtualfs_t6"
        WHERE
          "__virtualfs_t6"."__key_0" IS NOT NULL
          AND "__virtualfs_t6"."__key_1" IS NOT NULL
          AND "__virtualfs_t6"."__event" IS NOT NULL
      ) AS "__virtualfs_t10"
        ON "__virtualfs_t4"."__bound" >= "__virtualfs_t10"."__at"
        AND "__virtualfs_t4"."__key_0" = "__virtualfs_t10"."__key_0"
        AND "__virtualfs_t4"."__key_1" = "__virtualfs_t10"."__key_1"
    ) AS "__virtualfs_t11"
  ) AS "__virtualfs_t13"
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        "__virtualfs_t0"."origin",
        "__virtualfs_t0"."number",
        "__virtualfs_t0"."at",
        "__virtualfs_t0"."made",
        "__virtualfs_t0"."until",
        "__virtualfs_t0"."temp",
        "__virtualfs_t0"."origin" AS "__key_0",
        "__virtualfs_t0"."number" AS "__key_1",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."at")),
          CAST("__virtualfs_t0"."at" AS TIMESTAMP(6))
        ) AS "__event",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."at")),
          CAST("__virtualfs_t0"."at" AS TIMESTAMP(6))
        ) AS "__at",
        TRUE AS "__found"
      FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "__virtualfs_t0"
    ) AS "__virtualfs_t5"
    WHERE
      "__virtualfs_t5"."__key_0" IS NOT NULL
      AND "__virtualfs_t5"."__key_1" IS NOT NULL
      AND "__virtualfs_t5"."__event" IS NOT NULL
  ) AS "__virtualfs_t9"
    ON "__virtualfs_t13"."__key_0" = "__virtualfs_t9"."__key_0"
    AND "__virtualfs_t13"."__key_1" = "__virtualfs_t9"."__key_1"
    AND "__virtualfs_t13"."__at" = "__virtualfs_t9"."__at"
) AS "__virtualfs_t14"
WHERE
  "__virtualfs_t14"."__rank" = 0
) AS "__virtualfs_answer"
ORDER BY
  "__row" ASC;
