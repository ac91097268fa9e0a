-- Version 1: the facts. Times are integer microseconds since 1970-01-01 UTC. One campaign a file: campaign_id is there so
-- that ledgers can be put side by side in one query (ATTACH), and is always 1 here.
--
-- CHECKs say OR where IN would read better: SQLite builds a table for an IN list of three or more, for every row checked,
-- which cost a third of the time of a batch. json_valid is not used: SQLite 3.40 refuses it under trusted_schema=OFF.

CREATE TABLE format(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  min_reader INTEGER NOT NULL,  -- oldest schema version whose code may read this file
  min_writer INTEGER NOT NULL   -- oldest schema version whose code may write to it
) STRICT;

CREATE TABLE campaign(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  uuid TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  config TEXT NOT NULL,
  config_sha TEXT NOT NULL,
  optimizer TEXT NOT NULL,
  optimizer_version TEXT NOT NULL,
  mode TEXT NOT NULL DEFAULT 'run' CHECK(mode = 'run' OR mode = 'paused' OR mode = 'stopped' OR mode = 'done'),
  created_us INTEGER NOT NULL
) STRICT;
CREATE TRIGGER campaign_frozen BEFORE UPDATE OF id, uuid, name, config, config_sha, optimizer, optimizer_version, created_us
  ON campaign BEGIN SELECT RAISE(ABORT, 'the campaign is frozen: only its mode changes'); END;
CREATE TRIGGER campaign_kept BEFORE DELETE ON campaign BEGIN SELECT RAISE(ABORT, 'append-only'); END;

-- The fencing token. Whoever holds the highest epoch writes; everybody else has been replaced.
CREATE TABLE lease(
  name TEXT PRIMARY KEY CHECK(name = 'driver'),
  epoch INTEGER NOT NULL CHECK(epoch >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE session(
  epoch INTEGER PRIMARY KEY CHECK(epoch > 0),
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  pid INTEGER NOT NULL,
  host TEXT NOT NULL,
  started_us INTEGER NOT NULL
) STRICT;

CREATE TABLE "window"(
  number INTEGER PRIMARY KEY CHECK(number > 0),
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  role TEXT NOT NULL CHECK(role = 'search' OR role = 'confirm'),
  salt TEXT NOT NULL,
  start_us INTEGER NOT NULL,
  end_us INTEGER NOT NULL CHECK(end_us > start_us),
  control_lower INTEGER NOT NULL,
  control_upper INTEGER NOT NULL CHECK(control_upper >= control_lower)
) STRICT;
CREATE TRIGGER window_gapless BEFORE INSERT ON "window"
  WHEN NEW.number <> (SELECT ifnull(max(number), 0) + 1 FROM "window")
  BEGIN SELECT RAISE(ABORT, 'windows are numbered without gaps'); END;
CREATE TRIGGER window_frozen BEFORE UPDATE ON "window" BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER window_kept BEFORE DELETE ON "window" BEGIN SELECT RAISE(ABORT, 'append-only'); END;

CREATE TABLE trial(
  number INTEGER PRIMARY KEY CHECK(number >= 0),
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  candidate INTEGER,  -- gapless among the trials of the search: trial_starts
  role TEXT NOT NULL CHECK(role = 'search' OR role = 'confirm'),
  version INTEGER NOT NULL,
  told_before INTEGER NOT NULL CHECK(told_before >= 0),
  vector_sha TEXT NOT NULL CHECK(length(vector_sha) = 64),
  "window" INTEGER REFERENCES "window"(number),
  lower INTEGER,
  upper INTEGER,
  deadline_us INTEGER,
  asked_us INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'ASKED',  -- its values are those of trial_starts and trial_edge
  cause TEXT NOT NULL DEFAULT '',
  live_us INTEGER,
  lease_until_us INTEGER,
  CHECK((lower IS NULL) = (upper IS NULL) AND (lower IS NULL OR (lower < upper AND "window" IS NOT NULL)))
) STRICT;
CREATE INDEX trial_open ON trial(state) WHERE state <> 'TOLD';
CREATE INDEX trial_confirm ON trial(number) WHERE role = 'confirm';
CREATE INDEX trial_window ON trial("window") WHERE "window" IS NOT NULL;
CREATE TRIGGER trial_starts BEFORE INSERT ON trial
  WHEN NEW.state <> 'ASKED' OR NEW.number <> (SELECT ifnull(max(number), -1) + 1 FROM trial)
    OR NEW.candidate IS NOT CASE NEW.role WHEN 'search' THEN NEW.number - (SELECT count(*) FROM trial WHERE role = 'confirm') END
  BEGIN SELECT RAISE(ABORT, 'trials and candidates are numbered without gaps, and trials start as ASKED'); END;
-- The legal edges; the last one needs the tell that makes it.
CREATE TRIGGER trial_edge BEFORE UPDATE OF state ON trial
  WHEN NOT CASE NEW.state
    WHEN 'TOLD' THEN (OLD.state = 'AWAITING' OR OLD.state = 'ASKED')
      AND EXISTS (SELECT 1 FROM tell WHERE trial = NEW.number)
    WHEN 'PUSHING' THEN OLD.state = 'ASKED'
    WHEN 'LIVE' THEN OLD.state = 'PUSHING'
    WHEN 'WITHDRAWING' THEN OLD.state = 'LIVE' OR OLD.state = 'PUSHING'
    WHEN 'AWAITING' THEN OLD.state = 'WITHDRAWING'
    ELSE 0 END
  BEGIN SELECT RAISE(ABORT, 'illegal transition'); END;
CREATE TRIGGER trial_frozen BEFORE UPDATE OF number, campaign_id, candidate, role, version, told_before, vector_sha, "window",
  lower, upper, deadline_us, asked_us ON trial BEGIN SELECT RAISE(ABORT, 'trial is immutable'); END;
CREATE TRIGGER trial_kept BEFORE DELETE ON trial BEGIN SELECT RAISE(ABORT, 'append-only'); END;

-- Apart from trial, so that a change of state does not write a large vector again.
CREATE TABLE vector(
  trial INTEGER PRIMARY KEY REFERENCES trial(number),
  body BLOB NOT NULL CHECK(length(body) >= 8 AND length(body) % 8 = 0)  -- float64, little-endian
) STRICT;
CREATE TRIGGER vector_frozen BEFORE UPDATE ON vector BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER vector_kept BEFORE DELETE ON vector BEGIN SELECT RAISE(ABORT, 'append-only'); END;

CREATE TABLE push(
  trial INTEGER NOT NULL REFERENCES trial(number),
  kind TEXT NOT NULL CHECK(kind = 'apply' OR kind = 'withdraw'),
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  key TEXT NOT NULL UNIQUE,
  epoch INTEGER NOT NULL,
  body_sha TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CHECK(state = 'pending' OR state = 'unknown' OR state = 'acked' OR state = 'refused' OR state = 'lapsed'),
  attempts INTEGER NOT NULL DEFAULT 0 CHECK(attempts >= 0),
  next_us INTEGER NOT NULL,
  PRIMARY KEY(trial, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX push_open ON push(state) WHERE state IN ('pending', 'unknown');
CREATE TRIGGER push_frozen BEFORE UPDATE OF trial, kind, campaign_id, key, body_sha ON push
  BEGIN SELECT RAISE(ABORT, 'an order is immutable'); END;
CREATE TRIGGER push_settled BEFORE UPDATE OF state ON push
  WHEN OLD.state IN ('acked', 'refused', 'lapsed') AND NEW.state <> OLD.state
  BEGIN SELECT RAISE(ABORT, 'a settled order stays settled'); END;
CREATE TRIGGER push_kept BEFORE DELETE ON push BEGIN SELECT RAISE(ABORT, 'append-only'); END;

CREATE TABLE push_attempt(
  trial INTEGER NOT NULL,
  kind TEXT NOT NULL,
  n INTEGER NOT NULL CHECK(n > 0),
  at_us INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY(trial, kind, n),
  FOREIGN KEY(trial, kind) REFERENCES push(trial, kind)
) STRICT, WITHOUT ROWID;

-- Sufficient statistics, every revision. The identity says what may exist once; a quarantined arm is noted once, not once a poll.
CREATE TABLE reading(
  id INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  source TEXT NOT NULL,
  metric TEXT NOT NULL,
  "window" INTEGER NOT NULL,
  arm TEXT NOT NULL,
  cohort TEXT NOT NULL,
  as_of_us INTEGER NOT NULL,
  stats TEXT NOT NULL,
  trial INTEGER REFERENCES trial(number),
  received_us INTEGER NOT NULL,
  disposition TEXT NOT NULL CHECK(disposition = 'accepted' OR disposition = 'late' OR disposition = 'quarantined')
) STRICT;
CREATE UNIQUE INDEX reading_identity ON reading("window", arm, metric, cohort, source, as_of_us)
  WHERE disposition <> 'quarantined';
CREATE UNIQUE INDEX reading_quarantined ON reading("window", arm, metric, cohort, source)
  WHERE disposition = 'quarantined';
CREATE TRIGGER reading_frozen BEFORE UPDATE ON reading BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER reading_kept BEFORE DELETE ON reading BEGIN SELECT RAISE(ABORT, 'append-only'); END;

-- Same identity, other statistics: the first is kept, the second is noted here.
CREATE TABLE conflict(
  id INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  source TEXT NOT NULL,
  metric TEXT NOT NULL,
  "window" INTEGER NOT NULL,
  arm TEXT NOT NULL,
  cohort TEXT NOT NULL,
  as_of_us INTEGER NOT NULL,
  stats TEXT NOT NULL,
  received_us INTEGER NOT NULL,
  UNIQUE("window", arm, metric, cohort, source, as_of_us, stats)
) STRICT;

-- What no metric can be computed from (NaN, text, a negative count), once per place and reason.
CREATE TABLE rejected(
  id INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  source TEXT NOT NULL,
  metric TEXT NOT NULL,
  "window" TEXT NOT NULL,
  arm TEXT NOT NULL,
  cohort TEXT NOT NULL,
  reason TEXT NOT NULL,
  body TEXT NOT NULL,
  received_us INTEGER NOT NULL,
  UNIQUE("window", arm, metric, cohort, source, reason)
) STRICT;

CREATE TABLE watermark(
  "window" INTEGER NOT NULL,
  metric TEXT NOT NULL,
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  as_of_us INTEGER NOT NULL,
  polled_us INTEGER NOT NULL,
  PRIMARY KEY("window", metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE tell(
  seq INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  trial INTEGER NOT NULL UNIQUE REFERENCES trial(number),
  status TEXT NOT NULL CHECK(status = 'ok' OR status = 'failed' OR status = 'infeasible' OR status = 'expired' OR status = 'void'),
  value REAL CHECK(abs(value) <= 1.7976931348623157e308),
  se REAL CHECK(se >= 0 AND se <= 1.7976931348623157e308),
  cause TEXT NOT NULL,
  used TEXT NOT NULL,  -- JSON: ids of the readings that obs_sha covers
  obs_sha TEXT NOT NULL CHECK(length(obs_sha) = 64),
  at_us INTEGER NOT NULL,
  CHECK((status = 'ok') = (value IS NOT NULL))
) STRICT;
CREATE INDEX tell_unusual ON tell(status) WHERE status <> 'ok';
CREATE TRIGGER tell_gapless BEFORE INSERT ON tell
  WHEN NEW.seq <> (SELECT ifnull(max(seq), 0) + 1 FROM tell)
  BEGIN SELECT RAISE(ABORT, 'tells are numbered without gaps'); END;
-- One statement makes both facts, so count(tell) = count(TOLD) cannot be broken; trial_edge judges where it came from.
CREATE TRIGGER tell_ends_trial AFTER INSERT ON tell
  BEGIN UPDATE trial SET state = 'TOLD', cause = CASE NEW.cause WHEN '' THEN cause ELSE NEW.cause END
    WHERE number = NEW.trial; END;
CREATE TRIGGER tell_frozen BEFORE UPDATE ON tell BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER tell_kept BEFORE DELETE ON tell BEGIN SELECT RAISE(ABORT, 'append-only'); END;

CREATE TABLE snapshot(
  tell_seq INTEGER PRIMARY KEY,
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  asked INTEGER NOT NULL,
  optimizer_version TEXT NOT NULL,
  state BLOB NOT NULL,
  sha TEXT NOT NULL
) STRICT;

CREATE TABLE event(
  seq INTEGER PRIMARY KEY,
  at_us INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL,
  prev TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER event_chained BEFORE INSERT ON event
  WHEN NEW.seq <> (SELECT ifnull(max(seq), 0) + 1 FROM event)
    OR NEW.prev <> ifnull((SELECT hash FROM event ORDER BY seq DESC LIMIT 1), NEW.prev)
  BEGIN SELECT RAISE(ABORT, 'the chain is broken'); END;
CREATE TRIGGER event_frozen BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER event_kept BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'append-only'); END;
