-- Of each arm's visitors in a window: how many there were, and how many of them bought within 12 hours.
-- A visitor who was logged twice, because the shop was killed between the log and its clock, counts once.
SELECT
    arm,
    count(*) AS n,
    sum(bought) AS sum,
    (SELECT min(now_us, :as_of) FROM clock) AS as_of
FROM (
    SELECT
        exposures.arm AS arm,
        max(purchases.unit IS NOT NULL) AS bought
    FROM exposures LEFT JOIN purchases
        ON purchases.unit = exposures.unit
        AND purchases.bought_us <= :as_of
        AND purchases.bought_us - purchases.visited_us <= 12 * 3600000000
    WHERE exposures.campaign = :campaign AND exposures."window" = :window
    GROUP BY exposures.arm, exposures.unit
)
GROUP BY arm
