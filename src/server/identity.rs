//! For whom a request acts: the owner of the access key that signed it, or the peer itself.

use std::time::SystemTime;

use crate::endpoint::{Claim, ReplayWindow, Signable, SignatureError};
use crate::keystore::{Caller, KeystoreError, Principal, UNKNOWN_PROCESS, is_access_key_id};
use crate::process;
use crate::server::config::Unsigned;
use crate::server::keystores::Keystores;
use crate::server::transport::peer::Peer;

/// Decides who sends a request. Several threads may use it.
#[derive(Debug)]
pub(in crate::server) struct Identities {
    unsigned: Unsigned,
    replays: ReplayWindow,
}

/// Who sends a request, and the region it is for, if it says so.
#[derive(Debug)]
pub(in crate::server) struct Sender {
    pub caller: Caller,
    pub region: Option<String>,
}

/// Why nobody is taken as the sender.
#[derive(Debug)]
pub(in crate::server) enum NoSender {
    Signature(SignatureError),
    Keystore(KeystoreError),
}

impl From<SignatureError> for NoSender {
    fn from(error: SignatureError) -> Self {
        Self::Signature(error)
    }
}

impl Identities {
    pub(in crate::server) fn new(unsigned: Unsigned) -> Self {
        Self { unsigned, replays: ReplayWindow::default() }
    }

    /// Who sends this request at the time `now`. Access keys are those of the first keystore,
    /// whatever the region.
    pub(in crate::server) fn sender(
        &self,
        keystores: &Keystores,
        peer: &Peer,
        request: &Signable<'_>,
        now: SystemTime,
    ) -> Result<Sender, NoSender> {
        let claim = match Claim::parse(&request.headers) {
            Err(SignatureError::Missing) => return self.unsigned(keystores, peer, request, None),
            claim => claim?,
        };
        let keystore = keystores.first();
        let key = keystore.access_key(claim.access_key_id()).map_err(NoSender::Keystore)?;
        let Some(key) = key else {
            // A key that was valid once must not gain rights by ending. Any other id is a placeholder of
            // clients that cannot send unsigned requests.
            if is_access_key_id(claim.access_key_id()) {
                return Err(SignatureError::UnknownKey.into());
            }
            return self.unsigned(keystores, peer, request, Some(&claim));
        };
        claim.verify(request, &key.secret, now)?;
        self.replays.admit(&claim, now)?;
        if let Err(error) = keystore.note_access_key_use(claim.access_key_id(), now) {
            log::warn!("the last use of an access key is not noted: {error}");
        }
        let volume_context = key.volume_context;
        let caller = Caller { volume_context, ..peer.caller(key.principal) };
        Ok(Sender { caller, region: Some(claim.region().to_owned()) })
    }

    /// The peer itself, where that is enough.
    fn unsigned(
        &self,
        keystores: &Keystores,
        peer: &Peer,
        request: &Signable<'_>,
        claim: Option<&Claim>,
    ) -> Result<Sender, NoSender> {
        // A web page that a browser of this machine shows is no local user.
        let of_a_page = request.headers.iter().any(|(name, _)| *name == "origin");
        if self.unsigned == Unsigned::Accepted && peer.is_local() && !of_a_page {
            let region = claim.map(|claim| claim.region().to_owned());
            let mut caller = peer.unsigned();
            if let (Peer::Unix(peer_process), Principal::Unix { uid }) = (peer, &caller.principal)
                && (process::is_everybody(*uid)
                    || (keystores.have_evadable_rules() && !peer_process.is_known()))
            {
                log::warn!("a process of user {uid} is refused {UNKNOWN_PROCESS}");
                caller.unknown = true;
            }
            return Ok(Sender { caller, region });
        }
        Err(match claim {
            Some(_) => SignatureError::UnknownKey.into(),
            None => SignatureError::Missing.into(),
        })
    }
}
