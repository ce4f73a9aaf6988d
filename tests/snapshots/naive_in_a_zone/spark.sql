-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by sweep over times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at
SELECT
  `temp`
FROM (
SELECT
  `__virtualfs_t13`.`__row`,
  `__virtualfs_t13`.`temp` AS `temp`
FROM (
  SELECT
    `__virtualfs_t12`.`__row`,
    `__virtualfs_t12`.`__time`,
    `__virtualfs_t8`.`__event`,
    `__virtualfs_t8`.`__found`,
    `__virtualfs_t8`.`origin`,
    `__virtualfs_t8`.`number`,
    `__virtualfs_t8`.`at`,
    `__virtualfs_t8`.`made`,
    `__virtualfs_t8`.`until`,
    `__virtualfs_t8`.`temp`,
    ROW_NUMBER() OVER (
      PARTITION BY `__virtualfs_t12`.`__row`
      ORDER BY XXHASH64(
        `__virtualfs_t8`.`at`,
        `__virtualfs_t8`.`made`,
        `__virtualfs_t8`.`until`,
        `__virtualfs_t8`.`temp`
      ) DESC
    ) - 1 AS `__rank`
  FROM (
    SELECT
      `__virtualfs_t10`.`__row`,
      `__virtualfs_t10`.`__time`,
      `__virtualfs_t10`.`__key_0`,
      `__virtualfs_t10`.`__key_1`,
      IF(
        `__virtualfs_t10`.`__position` IS NOT NULL,
        `__virtualfs_t10`.`__last`,
        CAST(NULL AS BIGINT)
      ) AS `__at`
    FROM (
      SELECT
        `__virtualfs_t9`.`__key_0`,
        `__virtualfs_t9`.`__key_1`,
        `__virtualfs_t9`.`__position`,
        `__virtualfs_t9`.`__side`,
        `__virtualfs_t9`.`__row`,
        `__virtualfs_t9`.`__time`,
        MAX(`__virtualfs_t9`.`__at`) OVER (
          PARTITION BY `__virtualfs_t9`.`__key_0`, `__virtualfs_t9`.`__key_1`
          ORDER BY `__virtualfs_t9`.`__position` ASC NULLS LAST, `__virtualfs_t9`.`__side` ASC NULLS LAST
          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS `__last`
      FROM (
        SELECT
          *
        FROM (
          SELECT
            `__virtualfs_t5`.`__key_0`,
            `__virtualfs_t5`.`__key_1`,
            `__virtualfs_t5`.`__at` AS `__position`,
            `__virtualfs_t5`.`__at`,
            0 AS `__side`,
            CAST(NULL AS BIGINT) AS `__row`,
            CAST(NULL AS BIGINT) AS `__time`
          FROM (
            SELECT
              `__virtualfs_t2`.`origin`,
              `__virtualfs_t2`.`number`,
              `__virtualfs_t2`.`at`,
              `__virtualfs_t2`.`made`,
              `__virtualfs_t2`.`until`,
              `__virtualfs_t2`.`temp`,
              `__virtualfs_t2`.`origin` AS `__key_0`,
              `__virtualfs_t2`.`number` AS `__key_1`,
              IF(
                (
                  UNIX_MICROS(
                    CAST(CONCAT(
                      CAST(`__virtualfs_t2`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
                      ' America/New_York'
                    ) AS TIMESTAMP)
                  ) - 3600000000
                ) > UNIX_MICROS(
                  CAST(CONCAT(CAST(`__virtualfs_t2`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
                ),
                UNIX_MICROS(
                  CAST(CONCAT(
                    CAST(`__virtualfs_t2`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
                    ' America/New_York'
                  ) AS TIMESTAMP)
                ) - 3600000000,
                UNIX_MICROS(
                  CAST(CONCAT(CAST(`__virtualfs_t2`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
                )
              ) AS `__event`,
              IF(
                (
                  UNIX_MICROS(
                    CAST(CONCAT(
                      CAST(`__virtualfs_t2`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
                      ' America/New_York'
                    ) AS TIMESTAMP)
                  ) - 3600000000
                ) > UNIX_MICROS(
                  CAST(CONCAT(CAST(`__virtualfs_t2`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
                ),
                UNIX_MICROS(
                  CAST(CONCAT(
                    CAST(`__virtualfs_t2`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
                    ' America/New_York'
                  ) AS TIMESTAMP)
                ) - 3600000000,
                UNIX_MICROS(
                  CAST(CONCAT(CAST(`__virtualfs_t2`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
                )
              ) AS `__at`,
              TRUE AS `__found`
            FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `__virtualfs_t2`
          ) AS `__virtualfs_t5`
          WHERE
            `__virtualfs_t5`.`__key_0` IS NOT NULL
            AND `__virtualfs_t5`.`__key_1` IS NOT NULL
            AND `__virtualfs_t5`.`__event` IS NOT NULL
        ) AS `__virtualfs_t7`
        UNION ALL
        SELECT
          *
        FROM (
          SELECT
            `__virtualfs_t1`.`origin` AS `__key_0`,
            `__virtualfs_t1`.`number` AS `__key_1`,
            `__virtualfs_t1`.`__time` AS `__position`,
            CAST(NULL AS BIGINT) AS `__at`,
            1 AS `__side`,
            `__virtualfs_t1`.`__row`,
            `__virtualfs_t1`.`__time`
          FROM `__virtualfs_spine` AS `__virtualfs_t1`
        ) AS `__virtualfs_t3`
      ) AS `__virtualfs_t9`
    ) AS `__virtualfs_t10`
    WHERE
      `__virtualfs_t10`.`__side` = 1
  ) AS `__virtualfs_t12`
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        `__virtualfs_t0`.`origin`,
        `__virtualfs_t0`.`number`,
        `__virtualfs_t0`.`at`,
        `__virtualfs_t0`.`made`,
        `__virtualfs_t0`.`until`,
        `__virtualfs_t0`.`temp`,
        `__virtualfs_t0`.`origin` AS `__key_0`,
        `__virtualfs_t0`.`number` AS `__key_1`,
        IF(
          (
            UNIX_MICROS(
              CAST(CONCAT(
                CAST(`__virtualfs_t0`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
                ' America/New_York'
              ) AS TIMESTAMP)
            ) - 3600000000
          ) > UNIX_MICROS(
            CAST(CONCAT(CAST(`__virtualfs_t0`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
          ),
          UNIX_MICROS(
            CAST(CONCAT(
              CAST(`__virtualfs_t0`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
              ' America/New_York'
            ) AS TIMESTAMP)
          ) - 3600000000,
          UNIX_MICROS(
            CAST(CONCAT(CAST(`__virtualfs_t0`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
          )
        ) AS `__event`,
        IF(
          (
            UNIX_MICROS(
              CAST(CONCAT(
                CAST(`__virtualfs_t0`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
                ' America/New_York'
              ) AS TIMESTAMP)
            ) - 3600000000
          ) > UNIX_MICROS(
            CAST(CONCAT(CAST(`__virtualfs_t0`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
          ),
          UNIX_MICROS(
            CAST(CONCAT(
              CAST(`__virtualfs_t0`.`at` + INTERVAL '3600000000' MICROSECOND AS STRING),
              ' America/New_York'
            ) AS TIMESTAMP)
          ) - 3600000000,
          UNIX_MICROS(
            CAST(CONCAT(CAST(`__virtualfs_t0`.`at` AS STRING), ' America/New_York') AS TIMESTAMP)
          )
        ) AS `__at`,
        TRUE AS `__found`
      FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `__virtualfs_t0`
    ) AS `__virtualfs_t4`
    WHERE
      `__virtualfs_t4`.`__key_0` IS NOT NULL
      AND `__virtualfs_t4`.`__key_1` IS NOT NULL
      AND `__virtualfs_t4`.`__event` IS NOT NULL
  ) AS `__virtualfs_t8`
    ON `__virtualfs_t12`.`__key_0` = `__virtualfs_t8`.`__key_0`
    AND `__virtualfs_t12`.`__key_1` = `__virtualfs_t8`.`__key_1`
    AND `__virtualfs_t12`.`__at` = `__virtualfs_t8`.`__at`
) AS `__virtualfs_t13`
WHERE
  `__virtualfs_t13`.`__rank` = 0
) AS `__virtualfs_answer`
ORDER BY
  `__row` ASC;
