-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by native ASOF join of times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at, ties by made, written by the instant
SELECT
  "temp"
FROM (
SELECT
  "__virtualfs_t16"."__row",
  "__virtualfs_t16"."temp" AS "temp"
FROM (
  SELECT
    "__virtualfs_t15"."__row",
    "__virtualfs_t15"."__time",
    "__virtualfs_t9"."__event",
    "__virtualfs_t9"."__found",
    "__virtualfs_t9"."origin",
    "__virtualfs_t9"."number",
    "__virtualfs_t9"."at",
    "__virtualfs_t9"."made",
    "__virtualfs_t9"."until",
    "__virtualfs_t9"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "__virtualfs_t15"."__row"
      ORDER BY "__virtualfs_t9"."__event" DESC, "__virtualfs_t9"."__created" DESC, HASH(
        "__virtualfs_t9"."at",
        "__virtualfs_t9"."made",
        "__virtualfs_t9"."until",
        "__virtualfs_t9"."temp"
      ) DESC
      ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ) - 1 AS "__rank"
  FROM (
    SELECT
      "__virtualfs_t13"."__row",
      "__virtualfs_t13"."__time",
      "__virtualfs_t13"."__key_0",
      "__virtualfs_t13"."__key_1",
      CASE
        WHEN "__virtualfs_t13"."__bound" IS NOT NULL
        THEN "__virtualfs_t13"."__at"
        ELSE CAST(NULL AS TIMESTAMP(6))
      END AS "__at"
    FROM (
      SELECT
        "__virtualfs_t4"."__row",
        "__virtualfs_t4"."__time",
        "__virtualfs_t4"."__bound",
        "__virtualfs_t4"."__key_0",
        "__virtualfs_t4"."__key_1",
        "__virtualfs_t12"."__at"
      FROM (
        SELECT
          "__virtualfs_t1"."__row",
          "__virtualfs_t1"."__time",
          "__virtualfs_t1"."origin" AS "__key_0",
          "__virtualfs_t1"."number" AS "__key_1",
          "__virtualfs_t1"."__time" AS "__bound"
        FROM "__virtualfs_spine" AS "__virtualfs_t1"
      ) AS "__virtualfs_t4"
      ASOF LEFT JOIN (
        SELECT
          "__virtualfs_t10"."__key_0",
          "__virtualfs_t10"."__key_1",
          "__virtualfs_t10"."__at"
        FROM (
          SELECT
            "__virtualfs_t8"."__key_0",
            "__virtualfs_t8"."__key_1",
            "__virtualfs_t8"."__at",
            "__virtualfs_t8"."__event",
            MAX("__virtualfs_t8"."__event") OVER (
              PARTITION BY "__virtualfs_t8"."__key_0", "__virtualfs_t8"."__key_1"
              ORDER BY "__virtualfs_t8"."__at" ASC, "__virtualfs_t8"."__event" DESC
              ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS "__newest"
          FROM (
            SELECT
              *
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
                CASE
                  WHEN COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."at")),
                    CAST("__virtualfs_t2"."at" AS TIMESTAMP(6))
                  ) > COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."made")),
                    CAST("__virtualfs_t2"."made" AS TIMESTAMP(6))
                  )
                  THEN COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."at")),
                    CAST("__virtualfs_t2"."at" AS TIMESTAMP(6))
                  )
                  ELSE COALESCE(
                    MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."made")),
                    CAST("__virtualfs_t2"."made" AS TIMESTAMP(6))
                  )
                END AS "__at",
                COALESCE(
                  MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t2"."made")),
                  CAST("__virtualfs_t2"."made" AS TIMESTAMP(6))
                ) AS "__created",
                TRUE AS "__found"
              FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "__virtualfs_t2"
            ) AS "__virtualfs_t6"
            WHERE
              "__virtualfs_t6"."__key_0" IS NOT NULL
              AND "__virtualfs_t6"."__key_1" IS NOT NULL
              AND "__virtualfs_t6"."__event" IS NOT NULL
              AND "__virtualfs_t6"."__created" IS NOT NULL
          ) AS "__virtualfs_t8"
        ) AS "__virtualfs_t10"
        WHERE
          "__virtualfs_t10"."__event" >= "__virtualfs_t10"."__newest"
      ) AS "__virtualfs_t12"
        ON "__virtualfs_t4"."__bound" >= "__virtualfs_t12"."__at"
        AND "__virtualfs_t4"."__key_0" = "__virtualfs_t12"."__key_0"
        AND "__virtualfs_t4"."__key_1" = "__virtualfs_t12"."__key_1"
    ) AS "__virtualfs_t13"
  ) AS "__virtualfs_t15"
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
        CASE
          WHEN COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."at")),
            CAST("__virtualfs_t0"."at" AS TIMESTAMP(6))
          ) > COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."made")),
            CAST("__virtualfs_t0"."made" AS TIMESTAMP(6))
          )
          THEN COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."at")),
            CAST("__virtualfs_t0"."at" AS TIMESTAMP(6))
          )
          ELSE COALESCE(
            MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."made")),
            CAST("__virtualfs_t0"."made" AS TIMESTAMP(6))
          )
        END AS "__at",
        COALESCE(
          MAKE_TIMESTAMP(EPOCH_US("__virtualfs_t0"."made")),
          CAST("__virtualfs_t0"."made" AS TIMESTAMP(6))
        ) AS "__created",
        TRUE AS "__found"
      FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "__virtualfs_t0"
    ) AS "__virtualfs_t5"
    WHERE
      "__virtualfs_t5"."__key_0" IS NOT NULL
      AND "__virtualfs_t5"."__key_1" IS NOT NULL
      AND "__virtualfs_t5"."__event" IS NOT NULL
      AND "__virtualfs_t5"."__created" IS NOT NULL
  ) AS "__virtualfs_t9"
    ON "__virtualfs_t15"."__key_0" = "__virtualfs_t9"."__key_0"
    AND "__virtualfs_t15"."__key_1" = "__virtualfs_t9"."__key_1"
    AND "__virtualfs_t15"."__at" = "__virtualfs_t9"."__at"
) AS "__virtualfs_t16"
WHERE
  "__virtualfs_t16"."__rank" = 0
) AS "__virtualfs_answer"
ORDER BY
  "__row" ASC;
