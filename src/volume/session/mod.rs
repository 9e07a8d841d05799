//! The sessions of a vault: who holds it, what the vault and the anchor record of them, and the times
//! that are shown. Imports `model`, `backing`, `journal`, `keys` and `content`: a session hears which
//! files are about to change, and a keystore may remember it.

pub(in crate::volume) mod anchor;
pub(in crate::volume) mod journaling;
pub(in crate::volume) mod ledger;
pub(in crate::volume) mod lock;
pub(in crate::volume) mod state_file;
pub(in crate::volume) mod state_record;
pub(in crate::volume) mod times;
