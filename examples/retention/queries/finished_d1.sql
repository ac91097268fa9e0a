-- Of the units first exposed in the window, the share that had finished the welcome slate by the end of day 1.
-- Only complete units count: those whose whole day 1 is over and in the log. One row per arm.
WITH
  known AS (
    SELECT min(:as_of, (SELECT at_us FROM watermark)) AS as_of
  ),
  cohort AS (
    SELECT arm, unit, t_us / 86400000000 AS day0
    FROM exposures
    WHERE campaign = :campaign AND window = :window AND t_us >= :window_start AND t_us < :window_end
      AND (t_us / 86400000000 + 2) * 86400000000 <= (SELECT as_of FROM known)
  )
SELECT
  arm,
  count(*) AS n,
  sum(EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.unit = cohort.unit AND e.kind = 'finish'
      AND e.t_us < (day0 + 2) * 86400000000
  )) AS sum,
  (SELECT as_of FROM known) AS as_of
FROM cohort
GROUP BY arm
ORDER BY arm
