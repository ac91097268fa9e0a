-- One row: how many visitors the arm had in the window, and how many of them bought within a second.
-- Bound by blackopt: :campaign :arm :window :window_start :window_end :as_of (times in microseconds UTC).
SELECT
  count(*) AS n,
  coalesce(sum(bought_us IS NOT NULL AND bought_us < first_us + 1000000), 0) AS sum,
  min(:as_of, (SELECT written_until_us FROM watermark)) AS as_of
FROM exposure
WHERE campaign = :campaign AND window = :window AND arm = :arm
  AND first_us >= :window_start AND first_us < :window_end
  -- Only visitors whose second has passed count: the others could still buy.
  AND first_us + 1000000 <= min(:as_of, (SELECT written_until_us FROM watermark))
