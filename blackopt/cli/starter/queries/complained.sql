-- As bought.sql, for complaints.
SELECT
  count(*) AS n,
  coalesce(sum(complained), 0) AS sum,
  min(:as_of, (SELECT written_until_us FROM watermark)) AS as_of
FROM exposure
WHERE campaign = :campaign AND window = :window AND arm = :arm
  AND first_us >= :window_start AND first_us < :window_end
  AND first_us + 1000000 <= min(:as_of, (SELECT written_until_us FROM watermark))
