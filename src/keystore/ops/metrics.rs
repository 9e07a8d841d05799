//! What an open keystore tells about itself, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::engine::keystore::Keystore;
use crate::keystore::engine::metrics::head;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::key::{KeyRecord, key_id};
use crate::keystore::records::volume::KnownVolume;

impl Keystore {
    /// What this process did and what state the keystore is in, in the text form of Prometheus.
    /// Counts of files are those of the last scan of each volume.
    /// Errors: those of reading the keystore.
    pub fn metrics_text(&self, now: SystemTime) -> Result<String, KeystoreError> {
        let mut out = String::new();
        self.metrics().print(&mut out);
        let (waiting, written, lost) = self.audit().counts();
        for (name, kind, help, value) in [
            ("kmsfs_audit_queue_depth", "gauge", "Events that wait to be written.", waiting),
            ("kmsfs_audit_records_total", "counter", "Records that were written.", written),
            ("kmsfs_audit_lost_total", "counter", "Events that could not be written.", lost),
        ] {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
        let keys = self.read(|reader| {
            let keys = reader.all::<KeyRecord>()?.into_iter();
            keys.map(|key| Ok((key_id(&key.id)?, key.record))).collect::<Result<Vec<_>, _>>()
        })?;
        print_keys(&keys, now.into(), &mut out);
        print_volumes(&self.known_volumes()?, &mut out);
        Ok(out)
    }
}

fn print_keys(keys: &[(KeyId, KeyRecord)], now: UnixTime, out: &mut String) {
    head(out, "kmsfs_keys", "gauge", "Keys by state.");
    let mut states = BTreeMap::new();
    for (_, record) in keys {
        *states.entry(record.state.to_string()).or_insert(0_u64) += 1;
    }
    for (state, count) in states {
        let _ = writeln!(out, "kmsfs_keys{{state=\"{state}\"}} {count}");
    }
    head(out, "kmsfs_rotations_overdue", "gauge", "Keys whose rotation by date is due.");
    let overdue = keys.iter().filter(|(_, record)| record.rotation_due(now)).count();
    let _ = writeln!(out, "kmsfs_rotations_overdue {overdue}");
}

fn print_volumes(volumes: &[KnownVolume], out: &mut String) {
    let scans = || volumes.iter().filter_map(|known| Some((known.id, known.scan.as_ref()?)));
    let name = "kmsfs_volume_files";
    head(out, name, "gauge", "Files of a volume that need a key material.");
    for (volume, scan) in scans() {
        for need in &scan.needs {
            let (key, material) = (need.key, need.material);
            let labels = format!("volume=\"{volume}\",key=\"{key}\",material=\"{material}\"");
            let _ = writeln!(out, "{name}{{{labels}}} {}", need.files);
        }
    }
    let name = "kmsfs_volume_scan_timestamp_seconds";
    head(out, name, "gauge", "When the files of a volume were counted.");
    for (volume, scan) in scans() {
        let _ = writeln!(out, "{name}{{volume=\"{volume}\"}} {}", scan.at.seconds());
    }
}
