-- Version 4: candidates of models that are too large to be written down.

-- In place of a vector: the 24 bytes of its key (docs/artifacts.md). trial.vector_sha is then the hash of these.
CREATE TABLE candidate_key(
  trial INTEGER PRIMARY KEY REFERENCES trial(number),
  body BLOB NOT NULL CHECK(length(body) = 24)
) STRICT;
CREATE TRIGGER candidate_key_frozen BEFORE UPDATE ON candidate_key BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER candidate_key_kept BEFORE DELETE ON candidate_key BEGIN SELECT RAISE(ABORT, 'append-only'); END;

-- What the keys of a version are relative to. The numbers themselves are in the campaign's store, for as long as
-- a trial may need them.
CREATE TABLE centre(
  version INTEGER PRIMARY KEY CHECK(version >= 0),
  campaign_id INTEGER NOT NULL DEFAULT 1 CHECK(campaign_id = 1),
  vector_sha TEXT NOT NULL CHECK(length(vector_sha) = 64),      -- of the optimizer's float64 numbers
  artifact_sha TEXT NOT NULL CHECK(length(artifact_sha) = 64),  -- of the file that modules load
  published_us INTEGER NOT NULL
) STRICT;
CREATE TRIGGER centre_frozen BEFORE UPDATE ON centre BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER centre_kept BEFORE DELETE ON centre BEGIN SELECT RAISE(ABORT, 'append-only'); END;
