-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by native ASOF join of times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at, ties by made, TTL 1d
SELECT
  "temp"
FROM (
SELECT
  "t14"."__row",
  CASE
    WHEN "t14"."__event" >= (
      "t14"."__time" - INTERVAL '86400000000' MICROSECOND
    )
    THEN "t14"."temp"
    ELSE CAST(NULL AS DOUBLE)
  END AS "temp"
FROM (
  SELECT
    "t13"."__row",
    "t13"."__time",
    "t9"."__event",
    "t9"."__found",
    "t9"."origin",
    "t9"."number",
    "t9"."at",
    "t9"."made",
    "t9"."until",
    "t9"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "t13"."__row"
      ORDER BY "t9"."__created" DESC, HASH(
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
      "t11"."__key_0",
      "t11"."__key_1",
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
        "t4"."__key_0",
        "t4"."__key_1",
        "t10"."__at"
      FROM (
        SELECT
          "t1"."__row",
          "t1"."__time",
          "t1"."origin" AS "__key_0",
          "t1"."number" AS "__key_1",
          "t1"."__time" AS "__bound"
        FROM "__virtualfs_spine" AS "t1"
      ) AS "t4"
      ASOF LEFT JOIN (
        SELECT
          "t6"."__key_0",
          "t6"."__key_1",
          "t6"."__at"
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
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("t2"."at")),
              CAST("t2"."at" AS TIMESTAMP(6))
            ) AS "__event",
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("t2"."at")),
              CAST("t2"."at" AS TIMESTAMP(6))
            ) AS "__at",
            COALESCE(
              MAKE_TIMESTAMP(EPOCH_US("t2"."made")),
              CAST("t2"."made" AS TIMESTAMP(6))
            ) AS "__created",
            TRUE AS "__found"
          FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "t2"
        ) AS "t6"
        WHERE
          "t6"."__key_0" IS NOT NULL
          AND "t6"."__key_1" IS NOT NULL
          AND "t6"."__event" IS NOT NULL
      ) AS "t10"
        ON "t4"."__bound" >= "t10"."__at"
        AND "t4"."__key_0" = "t10"."__key_0"
        AND "t4"."__key_1" = "t10"."__key_1"
    ) AS "t11"
  ) AS "t13"
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
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("t0"."at")),
          CAST("t0"."at" AS TIMESTAMP(6))
        ) AS "__event",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("t0"."at")),
          CAST("t0"."at" AS TIMESTAMP(6))
        ) AS "__at",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("t0"."made")),
          CAST("t0"."made" AS TIMESTAMP(6))
        ) AS "__created",
        TRUE AS "__found"
      FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "t0"
    ) AS "t5"
    WHERE
      "t5"."__key_0" IS NOT NULL
      AND "t5"."__key_1" IS NOT NULL
      AND "t5"."__event" IS NOT NULL
  ) AS "t9"
    ON "t13"."__key_0" = "t9"."__key_0"
    AND "t13"."__key_1" = "t9"."__key_1"
    AND "t13"."__at" = "t9"."__at"
) AS "t14"
WHERE
  "t14"."__rank" = 0
) AS "answer"
ORDER BY
  "__row" ASC;
