-- Of an arm's calls in a window: how many customers have decided, and how many of them subscribed.
-- A call whose outcome is not known yet counts nowhere: it is neither a yes nor a no.
SELECT
    count(*) AS n,
    coalesce(sum(outcomes.subscribed), 0) AS sum,
    coalesce(sum(outcomes.subscribed), 0) AS sum_sq,
    (SELECT min(now_us, :as_of) FROM watermark) AS as_of
FROM calls JOIN outcomes USING (unit)
WHERE calls.campaign = :campaign
  AND calls."window" = :window
  AND calls.arm = :arm
  AND calls.called_us >= :window_start
  AND calls.called_us < :window_end
  AND outcomes.known_us <= :as_of
