-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by sweep over times, then the rows by equality (? source rows, ? keys, ? spine rows): latest by at, ties by made, written by the instant
SELECT
  `temp`
FROM (
SELECT
  `t15`.`__row`,
  `t15`.`temp` AS `temp`
FROM (
  SELECT
    `t14`.`__row`,
    `t14`.`__time`,
    `t8`.`__event`,
    `t8`.`__found`,
    `t8`.`origin`,
    `t8`.`number`,
    `t8`.`at`,
    `t8`.`made`,
    `t8`.`until`,
    `t8`.`temp`,
    ROW_NUMBER() OVER (
      PARTITION BY `t14`.`__row`
      ORDER BY `t8`.`__event` DESC, `t8`.`__created` DESC, XXHASH64(
        `t8`.`at`,
        `t8`.`made`,
        `t8`.`until`,
        `t8`.`temp`
      ) DESC
    ) - 1 AS `__rank`
  FROM (
    SELECT
      `t12`.`__row`,
      `t12`.`__time`,
      `t12`.`__key_0`,
      `t12`.`__key_1`,
      IF(`t12`.`__position` IS NOT NULL, `t12`.`__last`, CAST(NULL AS BIGINT)) AS `__at`
    FROM (
      SELECT
        `t11`.`__key_0`,
        `t11`.`__key_1`,
        `t11`.`__position`,
        `t11`.`__side`,
        `t11`.`__row`,
        `t11`.`__time`,
        MAX(`t11`.`__at`) OVER (
          PARTITION BY `t11`.`__key_0`, `t11`.`__key_1`
          ORDER BY `t11`.`__position` ASC NULLS LAST, `t11`.`__side` ASC NULLS LAST
          ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS `__last`
      FROM (
        SELECT
          *
        FROM (
          SELECT
            `t9`.`__key_0`,
            `t9`.`__key_1`,
            `t9`.`__at` AS `__position`,
            `t9`.`__at`,
            0 AS `__side`,
            CAST(NULL AS BIGINT) AS `__row`,
            CAST(NULL AS BIGINT) AS `__time`
          FROM (
            SELECT
              `t7`.`__key_0`,
              `t7`.`__key_1`,
              `t7`.`__at`,
              `t7`.`__event`,
              MAX(`t7`.`__event`) OVER (
                PARTITION BY `t7`.`__key_0`, `t7`.`__key_1`
                ORDER BY `t7`.`__at` ASC NULLS LAST, `t7`.`__event` DESC
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
              ) AS `__newest`
            FROM (
              SELECT
                *
              FROM (
                SELECT
                  `t2`.`origin`,
                  `t2`.`number`,
                  `t2`.`at`,
                  `t2`.`made`,
                  `t2`.`until`,
                  `t2`.`temp`,
                  `t2`.`origin` AS `__key_0`,
                  `t2`.`number` AS `__key_1`,
                  UNIX_MICROS(`t2`.`at`) AS `__event`,
                  IF(
                    UNIX_MICROS(`t2`.`at`) > UNIX_MICROS(`t2`.`made`),
                    UNIX_MICROS(`t2`.`at`),
                    UNIX_MICROS(`t2`.`made`)
                  ) AS `__at`,
                  UNIX_MICROS(`t2`.`made`) AS `__created`,
                  TRUE AS `__found`
                FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `t2`
              ) AS `t5`
              WHERE
                `t5`.`__key_0` IS NOT NULL
                AND `t5`.`__key_1` IS NOT NULL
                AND `t5`.`__event` IS NOT NULL
                AND `t5`.`__created` IS NOT NULL
            ) AS `t7`
          ) AS `t9`
          WHERE
            `t9`.`__event` >= `t9`.`__newest`
        ) AS `t10`
        UNION ALL
        SELECT
          *
        FROM (
          SELECT
            `t1`.`origin` AS `__key_0`,
            `t1`.`number` AS `__key_1`,
            `t1`.`__time` AS `__position`,
            CAST(NULL AS BIGINT) AS `__at`,
            1 AS `__side`,
            `t1`.`__row`,
            `t1`.`__time`
          FROM `__virtualfs_spine` AS `t1`
        ) AS `t3`
      ) AS `t11`
    ) AS `t12`
    WHERE
      `t12`.`__side` = 1
  ) AS `t14`
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        `t0`.`origin`,
        `t0`.`number`,
        `t0`.`at`,
        `t0`.`made`,
        `t0`.`until`,
        `t0`.`temp`,
        `t0`.`origin` AS `__key_0`,
        `t0`.`number` AS `__key_1`,
        UNIX_MICROS(`t0`.`at`) AS `__event`,
        IF(
          UNIX_MICROS(`t0`.`at`) > UNIX_MICROS(`t0`.`made`),
          UNIX_MICROS(`t0`.`at`),
          UNIX_MICROS(`t0`.`made`)
        ) AS `__at`,
        UNIX_MICROS(`t0`.`made`) AS `__created`,
        TRUE AS `__found`
      FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `t0`
    ) AS `t4`
    WHERE
      `t4`.`__key_0` IS NOT NULL
      AND `t4`.`__key_1` IS NOT NULL
      AND `t4`.`__event` IS NOT NULL
      AND `t4`.`__created` IS NOT NULL
  ) AS `t8`
    ON `t14`.`__key_0` = `t8`.`__key_0`
    AND `t14`.`__key_1` = `t8`.`__key_1`
    AND `t14`.`__at` = `t8`.`__at`
) AS `t15`
WHERE
  `t15`.`__rank` = 0
) AS `answer`
ORDER BY
  `__row` ASC;
