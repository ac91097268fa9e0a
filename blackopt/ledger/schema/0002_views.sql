-- Version 2: views for people with a SQLite shell. No program reads them.

CREATE VIEW trial_life AS
  SELECT trial.number, trial.role, trial.state, tell.seq AS told, tell.status, tell.value, tell.se, trial.cause, trial."window",
    strftime('%Y-%m-%dT%H:%M:%SZ', trial.asked_us / 1000000, 'unixepoch') AS asked,
    strftime('%Y-%m-%dT%H:%M:%SZ', trial.live_us / 1000000, 'unixepoch') AS live,
    strftime('%Y-%m-%dT%H:%M:%SZ', tell.at_us / 1000000, 'unixepoch') AS ended
  FROM trial LEFT JOIN tell ON tell.trial = trial.number;

CREATE VIEW order_life AS
  SELECT push.trial, push.kind, push.state, push.attempts, push.epoch,
    strftime('%Y-%m-%dT%H:%M:%SZ', push_attempt.at_us / 1000000, 'unixepoch') AS attempted,
    push_attempt.outcome, push_attempt.detail
  FROM push LEFT JOIN push_attempt USING (trial, kind);

CREATE VIEW reading_event AS
  SELECT "window" || '/' || arm || '/' || cohort || '/' || as_of_us AS source_event,
    id, source, metric, stats, trial, received_us, disposition
  FROM reading;
