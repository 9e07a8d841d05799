-- Schema 1. Names, times, states and material are inside `sealed`; in the clear are random ids,
-- lookup hashes, and what is needed to unlock.
PRAGMA application_id = 0x6b6d7366;
PRAGMA user_version = 1;

-- One row: the identity of the keystore, and sealed: row set digest, generation, clock.
CREATE TABLE keystore (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    id      BLOB NOT NULL CHECK (length(id) = 16),
    sealed  BLOB NOT NULL
) STRICT;

-- The root key, once for each way to unlock. Costs are those of Argon2id, for passphrases.
CREATE TABLE slot (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL,
    salt        BLOB NOT NULL CHECK (length(salt) = 16),
    memory_kib  INTEGER NOT NULL,
    passes      INTEGER NOT NULL,
    lanes       INTEGER NOT NULL,
    root        BLOB NOT NULL,
    sealed      BLOB NOT NULL
) STRICT;

CREATE TABLE kms_key (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- A key's wrapping key under the root key. Written once; deleting it destroys the key's material.
CREATE TABLE wrapping_key (
    id      BLOB PRIMARY KEY REFERENCES kms_key (id),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE key_material (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    key_id  BLOB NOT NULL REFERENCES kms_key (id),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX key_material_of_key ON key_material (key_id);

-- The id is a keyed hash of the name.
CREATE TABLE alias (
    id      BLOB PRIMARY KEY CHECK (length(id) = 32),
    key_id  BLOB NOT NULL REFERENCES kms_key (id),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_of_key ON alias (key_id);

CREATE TABLE volume (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    sealed  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
