-- 1.
-- the spine is sent as Arrow into the temporary table __virtualfs_spine (__row, __time, origin, number)

-- 2.
-- weather (draft) by join on validity (rows hold from at until until): valid from at until until, known 1h later
SELECT
  `temp`
FROM (
SELECT
  `__virtualfs_t7`.`__row`,
  `__virtualfs_t7`.`temp` AS `temp`
FROM (
  SELECT
    `__virtualfs_t3`.`__row`,
    `__virtualfs_t3`.`__time`,
    `__virtualfs_t6`.`__event`,
    `__virtualfs_t6`.`__found`,
    `__virtualfs_t6`.`origin`,
    `__virtualfs_t6`.`number`,
    `__virtualfs_t6`.`at`,
    `__virtualfs_t6`.`until`,
    `__virtualfs_t6`.`made`,
    `__virtualfs_t6`.`temp`,
    ROW_NUMBER() OVER (
      PARTITION BY `__virtualfs_t3`.`__row`
      ORDER BY `__virtualfs_t6`.`__event` DESC, XXHASH64(
        `__virtualfs_t6`.`at`,
        `__virtualfs_t6`.`made`,
        `__virtualfs_t6`.`until`,
        `__virtualfs_t6`.`temp`
      ) DESC
    ) - 1 AS `__rank`
  FROM (
    SELECT
      `__virtualfs_t0`.`__row`,
      `__virtualfs_t0`.`__time`,
      `__virtualfs_t0`.`origin` AS `__key_0`,
      `__virtualfs_t0`.`number` AS `__key_1`
    FROM `__virtualfs_spine` AS `__virtualfs_t0`
  ) AS `__virtualfs_t3`
  LEFT OUTER JOIN (
    SELECT
      *
    FROM (
      SELECT
        `__virtualfs_t1`.`origin`,
        `__virtualfs_t1`.`number`,
        `__virtualfs_t1`.`at`,
        `__virtualfs_t1`.`until`,
        `__virtualfs_t1`.`made`,
        `__virtualfs_t1`.`temp`,
        `__virtualfs_t1`.`origin` AS `__key_0`,
        `__virtualfs_t1`.`number` AS `__key_1`,
        UNIX_MICROS(`__virtualfs_t1`.`at`) AS `__event`,
        UNIX_MICROS(`__virtualfs_t1`.`at`) AS `__at`,
        COALESCE(UNIX_MICROS(`__virtualfs_t1`.`until`), 253402214400000000) AS `__until`,
        TRUE AS `__found`
      FROM (
SELECT `origin`, `number`, `at`, `made`, `until`, `temp` FROM `weather`
) AS `__virtualfs_t1`
    ) AS `__virtualfs_t4`
    WHERE
      `__virtualfs_t4`.`__key_0` IS NOT NULL
      AND `__virtualfs_t4`.`__key_1` IS NOT NULL
      AND `__virtualfs_t4`.`__event` IS NOT NULL
  ) AS `__virtualfs_t6`
    ON `__virtualfs_t3`.`__key_0` = `__virtualfs_t6`.`__key_0`
    AND `__virtualfs_t3`.`__key_1` = `__virtualfs_t6`.`__key_1`
    AND `__virtualfs_t6`.`__at` <= (
      `__virtualfs_t3`.`__time` + -3600000000
    )
    AND (
      `__virtualfs_t3`.`__time` + -3600000000
    ) < `__virtualfs_t6`.`__until`
) AS `__virtualfs_t7`
WHERE
  `__virtualfs_t7`.`__rank` = 0
) AS `__virtualfs_answer`
ORDER BY
  `__row` ASC;
