-- Version 3: the way from a recommendation to the incumbent, and back.

-- Trials and windows of a promotion have roles of their own. A CHECK is part of no row, so the text of the table may be
-- exchanged (https://www.sqlite.org/lang_altertable.html, section 7) instead of copying every trial.
PRAGMA writable_schema=ON;
UPDATE sqlite_schema SET sql = replace(sql, 'role = ''search'' OR role = ''confirm''',
  'role = ''search'' OR role = ''confirm'' OR role = ''test'' OR role = ''ramp'' OR role = ''holdback''')
  WHERE type = 'table' AND (name = 'trial' OR name = 'window');
PRAGMA writable_schema=RESET;

DROP INDEX trial_confirm;
CREATE INDEX trial_unsearched ON trial(role, number) WHERE role <> 'search';
DROP TRIGGER trial_starts;
CREATE TRIGGER trial_starts BEFORE INSERT ON trial
  WHEN NEW.state <> 'ASKED' OR NEW.number <> (SELECT ifnull(max(number), -1) + 1 FROM trial)
    OR NEW.candidate IS NOT CASE NEW.role WHEN 'search' THEN NEW.number - (SELECT count(*) FROM trial WHERE role <> 'search') END
  BEGIN SELECT RAISE(ABORT, 'trials and candidates are numbered without gaps, and trials start as ASKED'); END;

CREATE TABLE promotion(
  number INTEGER PRIMARY KEY CHECK(number > 0),
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  plan TEXT NOT NULL,          -- JSON: as it was when it started; edits of the campaign do not reach it
  first_trial INTEGER NOT NULL CHECK(first_trial >= 0),
  body BLOB NOT NULL CHECK(length(body) >= 8 AND length(body) % 8 = 0),  -- the recommendation, float64, little-endian
  body_sha TEXT NOT NULL CHECK(length(body_sha) = 64),
  started_us INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'TESTING',  -- its values are those of promotion_edge
  cause TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TRIGGER promotion_starts BEFORE INSERT ON promotion
  WHEN NEW.state <> 'TESTING' OR NEW.number <> (SELECT ifnull(max(number), 0) + 1 FROM promotion)
    OR EXISTS (SELECT 1 FROM promotion WHERE state <> 'REFUSED' AND state <> 'REVERTED')
  BEGIN SELECT RAISE(ABORT, 'promotions are numbered without gaps, start as TESTING, and follow only those that came to nothing'); END;
CREATE TRIGGER promotion_edge BEFORE UPDATE OF state ON promotion
  WHEN NOT CASE NEW.state
    WHEN 'REFUSED' THEN OLD.state = 'TESTING'
    WHEN 'RAMPING' THEN OLD.state = 'TESTING'
    WHEN 'ADOPTING' THEN OLD.state = 'RAMPING'
    WHEN 'HOLDING' THEN OLD.state = 'ADOPTING'
    WHEN 'DONE' THEN OLD.state = 'HOLDING'
    WHEN 'REVERTING' THEN OLD.state <> 'REFUSED' AND OLD.state <> 'REVERTING' AND OLD.state <> 'REVERTED'
    WHEN 'REVERTED' THEN OLD.state = 'REVERTING'
    ELSE 0 END
  BEGIN SELECT RAISE(ABORT, 'illegal transition'); END;
CREATE TRIGGER promotion_frozen BEFORE UPDATE OF number, campaign_id, plan, first_trial, body, body_sha, started_us ON promotion
  BEGIN SELECT RAISE(ABORT, 'a promotion is immutable'); END;
CREATE TRIGGER promotion_kept BEFORE DELETE ON promotion BEGIN SELECT RAISE(ABORT, 'append-only'); END;

-- What production was told to fall back to, in order, with the order's own delivery: number 0, the start, is nobody's order.
CREATE TABLE incumbent(
  number INTEGER PRIMARY KEY CHECK(number > 0),
  promotion INTEGER NOT NULL REFERENCES promotion(number),
  body BLOB NOT NULL CHECK(length(body) >= 8 AND length(body) % 8 = 0),
  body_sha TEXT NOT NULL CHECK(length(body_sha) = 64),
  artifact_sha TEXT NOT NULL CHECK(length(artifact_sha) = 64),
  key TEXT NOT NULL UNIQUE,
  epoch INTEGER NOT NULL,
  intended_us INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CHECK(state = 'pending' OR state = 'unknown' OR state = 'acked' OR state = 'refused' OR state = 'lapsed'),
  attempts INTEGER NOT NULL DEFAULT 0 CHECK(attempts >= 0),
  next_us INTEGER NOT NULL,
  detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TRIGGER incumbent_starts BEFORE INSERT ON incumbent
  WHEN NEW.state <> 'pending' OR NEW.number <> (SELECT ifnull(max(number), 0) + 1 FROM incumbent)
    OR NOT EXISTS (SELECT 1 FROM promotion WHERE number = NEW.promotion AND (state = 'ADOPTING' OR state = 'REVERTING'))
  BEGIN SELECT RAISE(ABORT, 'incumbents are numbered without gaps, and made by a promotion that adopts or reverts'); END;
CREATE TRIGGER incumbent_frozen BEFORE UPDATE OF number, promotion, body, body_sha, artifact_sha, key, intended_us ON incumbent
  BEGIN SELECT RAISE(ABORT, 'an order is immutable'); END;
CREATE TRIGGER incumbent_settled BEFORE UPDATE OF state ON incumbent
  WHEN OLD.state <> 'pending' AND OLD.state <> 'unknown' AND NEW.state <> OLD.state
  BEGIN SELECT RAISE(ABORT, 'a settled order stays settled'); END;
CREATE TRIGGER incumbent_kept BEFORE DELETE ON incumbent BEGIN SELECT RAISE(ABORT, 'append-only'); END;
