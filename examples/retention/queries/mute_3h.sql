-- Of the units first exposed in the window, the share that switched notifications off within 3 hours of it.
-- Only complete units count: those whose 3 hours are over and in the log. One row per arm.
WITH
  known AS (
    SELECT min(:as_of, (SELECT at_us FROM watermark)) AS as_of
  ),
  cohort AS (
    SELECT arm, unit, t_us
    FROM exposures
    WHERE campaign = :campaign AND window = :window AND t_us >= :window_start AND t_us < :window_end
      AND t_us + 3 * 3600000000 <= (SELECT as_of FROM known)
  )
SELECT
  arm,
  count(*) AS n,
  sum(EXISTS (
    SELECT 1 FROM events AS e
    WHERE e.unit = cohort.unit AND e.kind = 'mute'
      AND e.t_us >= cohort.t_us AND e.t_us < cohort.t_us + 3 * 3600000000
  )) AS sum,
  (SELECT as_of FROM known) AS as_of
FROM cohort
GROUP BY arm
ORDER BY arm
