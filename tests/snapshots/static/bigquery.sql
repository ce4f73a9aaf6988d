-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by latest row per key (no event timestamp): static: one row per key, no point-in-time guarantee
SELECT
  `temp`
FROM (
SELECT
  `t3`.`__row`,
  `t9`.`temp` AS `temp`
FROM (
  SELECT
    `t0`.`__row`,
    `t0`.`__time`,
    `t0`.`origin` AS `__key_0`,
    `t0`.`number` AS `__key_1`,
    1 AS `__one`
  FROM `__virtualfs_spine` AS `t0`
) AS `t3`
LEFT OUTER JOIN (
  SELECT
    `t7`.`origin`,
    `t7`.`number`,
    `t7`.`at`,
    `t7`.`made`,
    `t7`.`until`,
    `t7`.`temp`,
    `t7`.`__key_0`,
    `t7`.`__key_1`,
    `t7`.`__event`,
    `t7`.`__at`,
    `t7`.`__found`,
    1 AS `__one`
  FROM (
    SELECT
      `t6`.*
      EXCEPT (`__rank`)
    FROM (
      SELECT
        *
      FROM (
        SELECT
          `t4`.`origin`,
          `t4`.`number`,
          `t4`.`at`,
          `t4`.`made`,
          `t4`.`until`,
          `t4`.`temp`,
          `t4`.`__key_0`,
          `t4`.`__key_1`,
          `t4`.`__event`,
          `t4`.`__at`,
          `t4`.`__found`,
          ROW_NUMBER() OVER (
            PARTITION BY `t4`.`__key_0`, `t4`.`__key_1`
            ORDER BY FARM_FINGERPRINT(
              TO_JSON_STRING(
                `struct`(
                  `t4`.`at`,
                  `t4`.`made`,
                  `t4`.`until`,
                  `t4`.`temp`
                )
              )
            ) DESC
          ) - 1 AS `__rank`
        FROM (
          SELECT
            `t1`.`origin`,
            `t1`.`number`,
            `t1`.`at`,
            `t1`.`made`,
            `t1`.`until`,
            `t1`.`temp`,
            `t1`.`origin` AS `__key_0`,
            `t1`.`number` AS `__key_1`,
            CAST(NULL AS INT64) AS `__event`,
            CAST(NULL AS INT64) AS `__at`,
            TRUE AS `__found`
          FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `t1`
          WHERE
            `t1`.`origin` IS NOT NULL AND `t1`.`number` IS NOT NULL
        ) AS `t4`
      ) AS `t5`
      WHERE
        `t5`.`__rank` = 0
    ) AS `t6`
  ) AS `t7`
) AS `t9`
  ON `t3`.`__key_0` = `t9`.`__key_0`
  AND `t3`.`__key_1` = `t9`.`__key_1`
  AND `t3`.`__one` = `t9`.`__one`
) AS `answer`
ORDER BY
  `__row` ASC;
