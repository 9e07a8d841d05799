//! A PIN that a token refused is written down, so that no other process tries it again: tokens lock
//! themselves after a few wrong ones.

use crate::keystore::custom_store::link::RefusedPin;
use crate::keystore::engine::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::key_store::ConnectionState;
use crate::keystore::records::key_store::KeyStoreRecord;

impl Keystore {
    /// Ends the connections whose PIN was refused to this process.
    pub(in crate::keystore) fn note_refused_pins(&self) {
        for refused in self.inner.key_stores.refused_pins() {
            let store = refused.store;
            match self.end_connection(&refused) {
                Ok(()) => log::warn!(
                    "key store {store} is not connected any more, since its token refuses the PIN: \
                     'kmsfs key-store disconnect', 'update' and 'connect' give it another one"
                ),
                Err(error) => log::error!(
                    "the token of key store {store} refuses the PIN, and other processes will try it \
                     again: {error}"
                ),
            }
        }
    }

    fn end_connection(&self, refused: &RefusedPin) -> Result<(), KeystoreError> {
        self.write(|writer| {
            let mut record = KeyStoreRecord::find(writer, refused.store)?;
            let is_it = record.connections == refused.connection
                && record.connection == ConnectionState::Connected;
            if !is_it {
                return Ok(());
            }
            record.connection = ConnectionState::Failed;
            record.problem = Some(refused.code);
            record.save(writer, refused.store)
        })
    }
}
