-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by latest row per key (no event timestamp): static: one row per key, no point-in-time guarantee
SELECT
  `temp`
FROM (
SELECT
  `__virtualfs_t3`.`__row`,
  `__virtualfs_t9`.`temp` AS `temp`
FROM (
  SELECT
    `__virtualfs_t0`.`__row`,
    `__virtualfs_t0`.`__time`,
    `__virtualfs_t0`.`origin` AS `__key_0`,
    `__virtualfs_t0`.`number` AS `__key_1`,
    1 AS `__one`
  FROM `__virtualfs_spine` AS `__virtualfs_t0`
) AS `__virtualfs_t3`
LEFT OUTER JOIN (
  SELECT
    `__virtualfs_t7`.`origin`,
    `__virtualfs_t7`.`number`,
    `__virtualfs_t7`.`at`,
    `__virtualfs_t7`.`made`,
    `__virtualfs_t7`.`until`,
    `__virtualfs_t7`.`temp`,
    `__virtualfs_t7`.`__key_0`,
    `__virtualfs_t7`.`__key_1`,
    `__virtualfs_t7`.`__event`,
    `__virtualfs_t7`.`__at`,
    `__virtualfs_t7`.`__found`,
    1 AS `__one`
  FROM (
    SELECT
      `__virtualfs_t6`.*
      EXCEPT (`__rank`)
    FROM (
      SELECT
        *
      FROM (
        SELECT
          `__virtualfs_t4`.`origin`,
          `__virtualfs_t4`.`number`,
          `__virtualfs_t4`.`at`,
          `__virtualfs_t4`.`made`,
          `__virtualfs_t4`.`until`,
          `__virtualfs_t4`.`temp`,
          `__virtualfs_t4`.`__key_0`,
          `__virtualfs_t4`.`__key_1`,
          `__virtualfs_t4`.`__event`,
          `__virtualfs_t4`.`__at`,
          `__virtualfs_t4`.`__found`,
          ROW_NUMBER() OVER (
            PARTITION BY `__virtualfs_t4`.`__key_0`, `__virtualfs_t4`.`__key_1`
            ORDER BY FARM_FINGERPRINT(
              TO_JSON_STRING(
                `struct`(
                  `__virtualfs_t4`.`at`,
                  `__virtualfs_t4`.`made`,
                  `__virtualfs_t4`.`until`,
                  `__virtualfs_t4`.`temp`
                )
              )
            ) DESC
          ) - 1 AS `__rank`
        FROM (
          SELECT
            `__virtualfs_t1`.`origin`,
            `__virtualfs_t1`.`number`,
            `__virtualfs_t1`.`at`,
            `__virtualfs_t1`.`made`,
            `__virtualfs_t1`.`until`,
            `__virtualfs_t1`.`temp`,
            `__virtualfs_t1`.`origin` AS `__key_0`,
            `__virtualfs_t1`.`number` AS `__key_1`,
            CAST(NULL AS INT64) AS `__event`,
            CAST(NULL AS INT64) AS `__at`,
            TRUE AS `__found`
          FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `__virtualfs_t1`
          WHERE
            `__virtualfs_t1`.`origin` IS NOT NULL
            AND `__virtualfs_t1`.`number` IS NOT NULL
        ) AS `__virtualfs_t4`
      ) AS `__virtualfs_t5`
      WHERE
        `__virtualfs_t5`.`__rank` = 0
    ) AS `__virtualfs_t6`
  ) AS `__virtualfs_t7`
) AS `__virtualfs_t9`
  ON `__virtualfs_t3`.`__key_0` = `__virtualfs_t9`.`__key_0`
  AND `__virtualfs_t3`.`__key_1` = `__virtualfs_t9`.`__key_1`
  AND `__virtualfs_t3`.`__one` = `__virtualfs_t9`.`__one`
) AS `__virtualfs_answer`
ORDER BY
  `__row` ASC;
