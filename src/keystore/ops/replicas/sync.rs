//! Keystores that one process has open keep their related keys in step by themselves.

use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::records::key::{KeyRecord, key_id};
use crate::keystore::storage::rows::Table;

impl Keystore {
    /// Brings the material of primary keys here to their replicas in `others`, and forgets the
    /// replicas that are not there any more. Tells how many replicas changed.
    pub fn sync_replicas(&self, others: &[Self], now: SystemTime) -> Result<usize, KeystoreError> {
        let primaries = self.read(|reader| {
            let mut found = Vec::new();
            for stored in reader.all::<KeyRecord>()? {
                if let Some(regions) = stored.record.regions.filter(|regions| regions.is_primary())
                {
                    found.push((key_id(&stored.id)?, regions.replicas));
                }
            }
            Ok(found)
        })?;
        let mut changed = 0;
        for other in others {
            let region = other.region()?;
            let here = primaries.iter().filter(|(_, replicas)| replicas.contains(&region));
            for (key, _) in here {
                changed += usize::from(self.sync_replica_or_forget(*key, other, &region, now)?);
            }
        }
        Ok(changed)
    }

    fn sync_replica_or_forget(
        &self,
        key: KeyId,
        other: &Self,
        region: &str,
        now: SystemTime,
    ) -> Result<bool, KeystoreError> {
        let own = self.read(|reader| KeyRecord::find(reader, key))?;
        let theirs = other.read(|reader| reader.get::<KeyRecord>(key.as_bytes()))?;
        match theirs {
            None => self.forget_replica(key, region, now).map(|()| true),
            Some(theirs) if theirs.current == own.current => Ok(false),
            // A key that cannot be used now is brought over when it can be again.
            Some(_) => match self.sync_replica_in(key, other) {
                Err(KeystoreError::Disabled(_) | KeystoreError::InvalidState { .. }) => Ok(false),
                // The primary key is elsewhere by now, and will say so itself.
                Err(KeystoreError::Replica(
                    error @ (ReplicaError::Superseded { .. } | ReplicaError::NotPrimary { .. }),
                )) => {
                    log::warn!("{error}");
                    Ok(false)
                }
                synced => synced.map(|_| true),
            },
        }
    }

    pub(in crate::keystore) fn has_key(&self, key: KeyId) -> Result<bool, KeystoreError> {
        self.read(|reader| Ok(reader.rows().get(Table::Key, key.as_bytes())?.is_some()))
    }
}
