//! Is the log whole? Looks at every record, changes nothing.

use crate::keystore::audit::read::walk::Walk;
use crate::keystore::audit::read::walker::AuditReport;
use crate::keystore::audit::trail::Audit;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;

impl Audit {
    /// Checks chain, seals, numbers and signatures, and compares with what the keystore's own file
    /// and this process know of the log.
    /// Errors: those of reading; what is wrong is in the report.
    pub(in crate::keystore) fn verify(&self) -> Result<AuditReport, KeystoreError> {
        self.flush()?;
        let known = self.log().known().clone();
        let (newest, mut lost) = (known.newest(), known.lost().to_vec());
        let Some(mut walk) = Walk::begin(self.log(), known)? else { return Ok(gone(newest)) };
        while let Some(step) = walk.next()? {
            lost.retain(|lost| *lost != step.position);
            walk.take(&step);
        }
        let mut walker = walk.finish();
        lost.into_iter().for_each(|position| walker.lost(position));
        Ok(walker.report)
    }
}

/// The report on a log that is not there.
fn gone(newest: Option<Position>) -> AuditReport {
    let mut report = AuditReport::default();
    if let Some(newest) = newest.filter(|newest| newest.seq > 0) {
        let what = format!("the log is gone: the keystore knows record {}", newest.seq);
        report.problem(1, what);
    }
    report
}
