-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by join on validity (rows hold from at until until): valid from at until until, known 1h later
SELECT
  "temp"
FROM (
SELECT
  "t7"."__row",
  "t7"."temp" AS "temp"
FROM (
  SELECT
    "t3"."__row",
    "t3"."__time",
    "t6"."__event",
    "t6"."__found",
    "t6"."origin",
    "t6"."number",
    "t6"."at",
    "t6"."until",
    "t6"."made",
    "t6"."temp",
    ROW_NUMBER() OVER (
      PARTITION BY "t3"."__row"
      ORDER BY "t6"."__event" DESC, XXHASH64(
        TO_UTF8(
          CONCAT(
            CONCAT(
              CONCAT(
                CONCAT(
                  CONCAT(
                    CONCAT(COALESCE(CAST("t6"."at" AS VARCHAR), '\N'), ','),
                    COALESCE(CAST("t6"."made" AS VARCHAR), '\N')
                  ),
                  ','
                ),
                COALESCE(CAST("t6"."until" AS VARCHAR), '\N')
              ),
              ','
            ),
            COALESCE(CAST("t6"."temp" AS VARCHAR), '\N')
          )
        )
      ) DESC
    ) - 1 AS "__rank"
  FROM (
    SELECT
      "t0"."__row",
      "t0"."__time",
      "t0"."origin" AS "__key_0",
      "t0"."number" AS "__key_1"
    FROM "__virtualfs_spine" AS "t0"
  ) AS "t3"
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        "t1"."origin",
        "t1"."number",
        "t1"."at",
        "t1"."until",
        "t1"."made",
        "t1"."temp",
        "t1"."origin" AS "__key_0",
        "t1"."number" AS "__key_1",
        (
          DATE_DIFF(
            'MILLISECOND',
            CAST('1970-01-01' AS TIMESTAMP(6)),
            DATE_TRUNC('MILLISECOND', CAST(AT_TIMEZONE("t1"."at", 'UTC') AS TIMESTAMP(6)))
          ) * 1000
        ) + CAST(SUBSTR(
          CAST(CAST(AT_TIMEZONE("t1"."at", 'UTC') AS TIMESTAMP(6)) AS VARCHAR),
          24,
          3
        ) AS BIGINT) AS "__event",
        (
          DATE_DIFF(
            'MILLISECOND',
            CAST('1970-01-01' AS TIMESTAMP(6)),
            DATE_TRUNC('MILLISECOND', CAST(AT_TIMEZONE("t1"."at", 'UTC') AS TIMESTAMP(6)))
          ) * 1000
        ) + CAST(SUBSTR(
          CAST(CAST(AT_TIMEZONE("t1"."at", 'UTC') AS TIMESTAMP(6)) AS VARCHAR),
          24,
          3
        ) AS BIGINT) AS "__at",
        COALESCE(
          (
            DATE_DIFF(
              'MILLISECOND',
              CAST('1970-01-01' AS TIMESTAMP(6)),
              DATE_TRUNC('MILLISECOND', CAST(AT_TIMEZONE("t1"."until", 'UTC') AS TIMESTAMP(6)))
            ) * 1000
          ) + CAST(SUBSTR(
            CAST(CAST(AT_TIMEZONE("t1"."until", 'UTC') AS TIMESTAMP(6)) AS VARCHAR),
            24,
            3
          ) AS BIGINT),
          253402214400000000
        ) AS "__until",
        TRUE AS "__found"
      FROM (
SELECT "origin", "number", "at", "made", "until", "temp" FROM "weather"
) AS "t1"
    ) AS "t4"
    WHERE
      "t4"."__key_0" IS NOT NULL
      AND "t4"."__key_1" IS NOT NULL
      AND "t4"."__event" IS NOT NULL
  ) AS "t6"
    ON "t3"."__key_0" = "t6"."__key_0"
    AND "t3"."__key_1" = "t6"."__key_1"
    AND "t6"."__at" <= (
      "t3"."__time" + -3600000000
    )
    AND (
      "t3"."__time" + -3600000000
    ) < "t6"."__until"
) AS "t7"
WHERE
  "t7"."__rank" = 0
) AS "answer"
ORDER BY
  "__row" ASC;
