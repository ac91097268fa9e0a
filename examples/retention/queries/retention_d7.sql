-- Day-7 retention: of the units first exposed in the window, the share that visited on calendar day 7 (UTC).
-- A mean of 0 and 1, with a covariate from strictly before the exposure (CUPED): on how many of the 7 times
-- 24 hours before it the unit had browsed the website.
-- Only complete units count: those whose whole day 7 is over and in the log. One row per arm.
WITH
  known AS (
    SELECT min(:as_of, (SELECT at_us FROM watermark)) AS as_of
  ),
  cohort AS (
    SELECT arm, unit, t_us, t_us / 86400000000 AS day0
    FROM exposures
    WHERE campaign = :campaign AND window = :window AND t_us >= :window_start AND t_us < :window_end
      AND (t_us / 86400000000 + 8) * 86400000000 <= (SELECT as_of FROM known)
  ),
  activity AS (
    SELECT
      arm,
      EXISTS (
        SELECT 1 FROM events AS e
        WHERE e.unit = cohort.unit AND e.kind = 'visit'
          AND e.t_us >= (day0 + 7) * 86400000000 AND e.t_us < (day0 + 8) * 86400000000
      ) AS y,
      (
        SELECT count(*) FROM events AS e
        WHERE e.unit = cohort.unit AND e.kind = 'browse'
          AND e.t_us >= cohort.t_us - 7 * 86400000000 AND e.t_us < cohort.t_us
      ) AS x
    FROM cohort
  )
SELECT
  arm,
  count(*) AS n,
  sum(y) AS sum,
  sum(y * y) AS sum_sq,
  sum(x) AS cov_sum,
  sum(x * x) AS cov_sum_sq,
  sum(y * x) AS num_cov,
  (SELECT as_of FROM known) AS as_of
FROM activity
GROUP BY arm
ORDER BY arm
