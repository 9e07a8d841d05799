//! How the session of a volume begins.

use std::sync::Arc;

use rustix::fs::syncfs;

use super::volume_descriptor::{DESCRIPTOR, SPARE};
use crate::crypto::random;
use crate::envelope::{VolumeDescriptor, VolumeFeatures, VolumeKeys};
use crate::id::VolumeId;
use crate::volume::backing::own_file;
use crate::volume::content::Shared;
use crate::volume::model::clock;
use crate::volume::model::error::Result;
use crate::volume::model::options::Options;
use crate::volume::namespace::dir_rules::DirAnchor;
use crate::volume::session::anchor::AnchorStore;
use crate::volume::session::ledger::{Found, Ledger};
use crate::volume::session::lock::Session;
use crate::volume::session::state_record::{Begin, Freshness};

/// Begins the session: looks at what the vault and the anchor say, and, if the vault may change,
/// writes down that a session is open, after one sync of the filesystem: from here on the newest
/// copies of everything are the durable ones (R2d).
///
/// A volume from before the state record gets one. Every step can be repeated: record, anchor,
/// descriptor (which builds from before then refuse), and at last the removal of the old file.
pub(in crate::volume) fn open_session(
    session: &mut Session,
    descriptor: &mut VolumeDescriptor,
    keys: VolumeKeys,
    anchor_store: AnchorStore,
    options: &Options,
    directories: &DirAnchor,
) -> Result<(Shared, Option<(&'static str, &'static str)>)> {
    let upgrade = !descriptor.features.has(VolumeFeatures::STATE_RECORD);
    let mut random = [0; 4];
    random::fill(&mut random)?;
    let begin = Begin {
        now: clock::now_nanos(),
        random: u32::from_le_bytes(random),
        consent: options.restored,
        all_excused: options.accept_residue,
    };
    if !options.read_only {
        syncfs(session.meta())?;
    }
    let counted = if upgrade { session.counted()? } else { None };
    let mut found = Found::look(session.meta(), &keys, &anchor_store, counted, begin)?;
    if found.freshness == Freshness::Newer {
        // Nobody here knows what was moved there, and to where: it is learnt anew.
        directories.occupants.forget();
        found.anchor.iter_mut().for_each(|anchor| anchor.places.clear());
    }
    session.set_notice(found.notice());
    tell(descriptor.volume, &found);
    let is_lost = !upgrade && found.freshness == Freshness::Lost;
    let lost = is_lost.then_some(("state", "the record of sessions is missing or not authentic"));
    let shared = Shared::in_session(found.record.word, found.record.unrecovered.clone());
    shared.set_crashes(found.record.unrecovered.clone(), found.record.cursor);
    if options.read_only {
        return Ok((shared, lost));
    }
    let again = if upgrade {
        let changed = VolumeDescriptor {
            sequence: descriptor.sequence + 1,
            features: descriptor.features.with(VolumeFeatures::STATE_RECORD),
            ..descriptor.clone()
        };
        Some((changed.encode(&keys), changed))
    } else {
        None
    };
    let ledger =
        Arc::new(Ledger::begin(session.meta(), keys, anchor_store, found, options.unanchored)?);
    session.write_down(ledger.clone());
    if let Some((bytes, changed)) = again {
        own_file::replace(session.meta(), SPARE, &bytes)?;
        own_file::replace(session.meta(), DESCRIPTOR, &bytes)?;
        *descriptor = changed;
        log::info!("volume {} was brought up to date", descriptor.volume);
    }
    // Also after an upgrade that was interrupted just before this.
    session.forget_counted()?;
    Ok((shared.announcing(ledger), lost))
}

/// Says what a person should know of what was found.
fn tell(volume: VolumeId, found: &Found) {
    if let Some(message) = found.notice() {
        log::warn!("volume {volume}: {message}");
    }
    let withheld = found.record.unrecovered.iter().filter(|crash| crash.withheld).count();
    let crashes = found.record.unrecovered.len() - withheld;
    if crashes > 0 {
        log::warn!(
            "volume {volume}: {crashes} of its sessions did not end cleanly: what was being changed is \
             looked through and mended"
        );
    }
    if withheld > 0 {
        log::warn!(
            "volume {volume}: what {withheld} of its crashed sessions left half written is refused, \
             not believed: if the vault was restored on purpose, mount it once with --restored"
        );
    }
}
