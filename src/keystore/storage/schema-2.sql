-- What schema 2 adds to schema 1.
PRAGMA user_version = 2;

-- What else a slot needs to be opened, by kind; authenticated with the slot.
ALTER TABLE slot ADD COLUMN detail BLOB NOT NULL DEFAULT x'';

CREATE TABLE key_grant (
    id      BLOB PRIMARY KEY CHECK (length(id) = 32),
    key_id  BLOB NOT NULL REFERENCES kms_key (id),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX key_grant_of_key ON key_grant (key_id);

-- Private keys that material on its way to a key is wrapped for.
CREATE TABLE import_key (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    key_id  BLOB NOT NULL REFERENCES kms_key (id),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX import_key_of_key ON import_key (key_id);

-- Policies of users and groups. The id is a keyed hash of the ARN.
CREATE TABLE principal (
    id      BLOB PRIMARY KEY CHECK (length(id) = 32),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The id is a keyed hash of the access key's id.
CREATE TABLE access_key (
    id      BLOB PRIMARY KEY CHECK (length(id) = 32),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE key_store (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Private keys that a key of another keystore is sealed for, once.
CREATE TABLE transfer_key (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
