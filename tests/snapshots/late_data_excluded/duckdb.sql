-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by native ASOF join of times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at, ties by made, written by the instant
SELECT
  "temp"
FROM (
SELECT
  "t16"."__row",
  "t16"."temp" AS "temp"
FROM (
  SELECT
    "t15"."__row",
    "t15"."__time",
    "t9"."__event",
    "t9"."__found",
    "t9"."origin",
    "t9"."number",
    "t9"."at",
    "t9"."made",
    "t9"."until",
    "t9"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "t15"."__row"
      ORDER BY "t9"."__event" DESC, "t9"."__created" DESC, HASH(
        "t9"."at",
        "t9"."made",
        "t9"."until",
        "t9"."temp"
      ) DESC
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "__rank"
  FROM (
    SELECT
      "t13"."__row",
      "t13"."__time",
      "t13"."__key_0",
      "t13"."__key_1",
      CASE
        WHEN "t13"."__bound" IS NOT NULL
        THEN "t13"."__at"
        ELSE CAST(NULL AS TIMESTAMP(6))
      END AS "__at"
    FROM (
      SELECT
        "t4"."__row",
        "t4"."__time",
        "t4"."__bound",
        "t4"."__key_0",
        "t4"."__key_1",
        "t12"."__at"
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
          "t10"."__key_0",
          "t10"."__key_1",
          "t10"."__at"
        FROM (
          SELECT
            "t8"."__key_0",
            "t8"."__key_1",
            "t8"."__at",
            "t8"."__event",
            MAX("t8"."__event") OVER (
              PARTITION BY "t8"."__key_0", "t8"."__key_1"
              ORDER BY "t8"."__at" ASC, "t8"."__event" DESC
              ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS "__newest"
          FROM (
            SELECT
              *
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
                CASE
                  WHEN COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("t2"."at")),
                    CAST("t2"."at" AS TIMESTAMP(6))
                  ) > COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("t2"."made")),
                    CAST("t2"."made" AS TIMESTAMP(6))
                  )
                  THEN COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("t2"."at")),
                    CAST("t2"."at" AS TIMESTAMP(6))
                  )
                  ELSE COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("t2"."made")),
                    CAST("t2"."made" AS TIMESTAMP(6))
                  )
                END AS "__at",
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
              AND "t6"."__created" IS NOT NULL
          ) AS "t8"
        ) AS "t10"
        WHERE
          "t10"."__event" >= "t10"."__newest"
      ) AS "t12"
        ON "t4"."__bound" >= "t12"."__at"
        AND "t4"."__key_0" = "t12"."__key_0"
        AND "t4"."__key_1" = "t12"."__key_1"
    ) AS "t13"
  ) AS "t15"
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
        CASE
          WHEN COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("t0"."at")),
            CAST("t0"."at" AS TIMESTAMP(6))
          ) > COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("t0"."made")),
            CAST("t0"."made" AS TIMESTAMP(6))
          )
          THEN COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("t0"."at")),
            CAST("t0"."at" AS TIMESTAMP(6))
          )
          ELSE COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("t0"."made")),
            CAST("t0"."made" AS TIMESTAMP(6))
          )
        END AS "__at",
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
      AND "t5"."__created" IS NOT NULL
  ) AS "t9"
    ON "t15"."__key_0" = "t9"."__key_0"
    AND "t15"."__key_1" = "t9"."__key_1"
    AND "t15"."__at" = "t9"."__at"
) AS "t16"
WHERE
  "t16"."__rank" = 0
) AS "answer"
ORDER BY
  "__row" ASC;
