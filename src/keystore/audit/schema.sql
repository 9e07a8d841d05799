-- The audit log of a keystore. Numbers and hashes are in the clear, what happened is sealed.
PRAGMA application_id = 0x6b6d6175;
PRAGMA user_version = 1;

CREATE TABLE record (
    seq    INTEGER PRIMARY KEY,
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    sealed BLOB NOT NULL
) STRICT;

-- Signed places of the chain.
CREATE TABLE checkpoint (
    seq       INTEGER PRIMARY KEY,
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    time      INTEGER NOT NULL,
    signature BLOB NOT NULL
) STRICT;

-- The place behind which the log begins.
CREATE TABLE anchor (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    seq       INTEGER NOT NULL,
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    time      INTEGER NOT NULL,
    signature BLOB NOT NULL
) STRICT;

-- The last cryptographic operation of each key. The row of the id 0 says since when.
CREATE TABLE last_use (
    key_id BLOB PRIMARY KEY CHECK (length(key_id) = 16),
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
