//! Deleting a primary key: it waits for its replicas.

use crate::keystore::ops::replicas::Regions;
use crate::keystore::records::key::{KeyRecord, KeyState};

impl KeyRecord {
    /// The deletion of a primary key with replicas waits until they are gone; `true` if so.
    pub(in crate::keystore) fn wait_for_replicas(&mut self, days: u16) -> bool {
        let waits = |regions: &Regions| regions.is_primary() && !regions.replicas.is_empty();
        match &mut self.regions {
            Some(regions) if waits(regions) => regions.waiting_days = Some(days),
            _ => return false,
        }
        self.state = KeyState::PendingReplicaDeletion;
        true
    }

    /// The deletion is taken back.
    pub(in crate::keystore) fn stop_waiting_for_replicas(&mut self) {
        if let Some(regions) = &mut self.regions {
            regions.waiting_days = None;
        }
    }
}
