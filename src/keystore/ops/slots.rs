//! Ways to unlock: adding, removing, replacing and listing them.

use std::time::SystemTime;

use crate::keystore::engine::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::slot::SlotId;
use crate::keystore::storage::rows::SlotRow;
use crate::keystore::unlock::slot::{SlotInfo, find, info, insert, sealed_root};
use crate::keystore::unlock::{Loaded, Unlock, token_slot};

impl Keystore {
    /// Adds a way to unlock.
    /// Errors: `KeyFile`.
    pub fn add_slot(&self, unlock: &Unlock, now: SystemTime) -> Result<SlotId, KeystoreError> {
        let loaded = unlock.load()?;
        let slot = sealed_root(self.root(), unlock.kind(), &loaded)?;
        let doomed = slot.clone();
        self.operate_own(OwnOperation::AddSlot, |details| {
            details.detail = Some(unlock.kind().as_str().to_owned());
            let written = self.write(|writer| insert(writer, slot, now.into()));
            self.forget_unless(written, &loaded, &doomed)
        })
    }

    /// Removes a way to unlock. Whoever opened the keystore with it, or has an earlier copy of the
    /// file, knows the root key, which stays the same: against them, make new keys elsewhere. The
    /// key of a slot of a token stays on the token.
    /// Errors: `SlotNotFound`, `LastSlot`.
    pub fn remove_slot(&self, slot: SlotId) -> Result<(), KeystoreError> {
        self.operate_own(OwnOperation::RemoveSlot, |details| {
            details.detail = Some(format!("slot {slot}"));
            self.write(|writer| {
                let slots = writer.rows().slots()?;
                let doomed = find(&slots, slot)?;
                if slots.len() == 1 {
                    return Err(KeystoreError::LastSlot);
                }
                writer.meta.scrub_due = true;
                writer.delete_slot(doomed)
            })
        })?;
        self.scrub_if_due();
        Ok(())
    }

    /// Puts another passphrase or key file in the place of a slot, in one transaction.
    /// Errors: `SlotNotFound`, `KeyFile`.
    pub fn replace_slot(
        &self,
        slot: SlotId,
        unlock: &Unlock,
        now: SystemTime,
    ) -> Result<SlotId, KeystoreError> {
        let loaded = unlock.load()?;
        let fresh = sealed_root(self.root(), unlock.kind(), &loaded)?;
        let doomed = fresh.clone();
        let id = self.operate_own(OwnOperation::ReplaceSlot, |details| {
            details.detail = Some(format!("slot {slot}, now a {}", unlock.kind().as_str()));
            let written = self.write(|writer| {
                let slots = writer.rows().slots()?;
                writer.delete_slot(find(&slots, slot)?)?;
                writer.meta.scrub_due = true;
                insert(writer, fresh, now.into())
            });
            self.forget_unless(written, &loaded, &doomed)
        })?;
        self.scrub_if_due();
        Ok(id)
    }

    /// The slots, in the order they were added.
    pub fn list_slots(&self) -> Result<Vec<SlotInfo>, KeystoreError> {
        self.read(|reader| reader.rows().slots()?.iter().map(|slot| info(reader, slot)).collect())
    }
}

impl Keystore {
    /// Takes the key of a slot that was not stored off its token again. A commit whose outcome is
    /// not known may have stored the slot, so the rows are asked: a key that a slot needs stays.
    fn forget_unless<T>(
        &self,
        written: Result<T, KeystoreError>,
        loaded: &Loaded<'_>,
        slot: &SlotRow,
    ) -> Result<T, KeystoreError> {
        if let (Err(_), Loaded::Token(token)) = (&written, loaded) {
            let stored = self.read(|reader| reader.rows().slots());
            if stored.is_ok_and(|slots| slots.iter().all(|other| other.salt != slot.salt)) {
                token_slot::discard(token, slot);
            }
        }
        written
    }
}
