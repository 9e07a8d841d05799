//! Which records somebody wants to see.

use std::ops::ControlFlow;

use crate::keystore::audit::event::{AuditRecord, Event, EventTime};
use crate::keystore::audit::file::PAGE;
use crate::keystore::audit::trail::Audit;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;

/// What records must have in common. Nothing set lets all through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Not before this time.
    pub since: Option<EventTime>,
    /// Before this time.
    pub until: Option<EventTime>,
    /// The principal's ARN, or its end behind a `/` or a `:`.
    pub principal: Option<String>,
    /// The operation.
    pub operation: Option<String>,
    /// The key's ARN, or its id.
    pub key: Option<String>,
    /// The result.
    pub result: Option<String>,
    /// The source.
    pub source: Option<String>,
}

impl AuditFilter {
    /// True if all records get through.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// True for an event that somebody wants to see.
    pub fn matches(&self, event: &Event) -> bool {
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        self.since.is_none_or(|since| event.end() >= since)
            && self.until.is_none_or(|until| event.time < until)
            && names(self.principal.as_deref(), Some(&event.principal))
            && names(self.key.as_deref(), event.key.as_deref())
            && same(&self.operation, &event.operation)
            && same(&self.result, &event.result)
            && same(&self.source, &event.source)
    }
}

/// True if `wanted` is the whole ARN or ends it as a name of its own.
fn names(wanted: Option<&str>, arn: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    let rest = arn.and_then(|arn| arn.strip_suffix(wanted));
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', ':']))
}

impl Audit {
    /// Shows the records that match, in order, until `show` has seen enough.
    /// Errors: `Tampered` for a record that does not authenticate; those of the file.
    pub(in crate::keystore) fn each(
        &self,
        filter: &AuditFilter,
        mut show: impl FnMut(AuditRecord) -> ControlFlow<()>,
    ) -> Result<(), KeystoreError> {
        self.flush()?;
        let mut after = Position { seq: 0, hash: [0; 32] };
        loop {
            // Page by page: whoever writes waits for one page, not for all.
            let page = self.log().with(|file| file.read(|rows| rows.records(after.seq, PAGE)))?;
            let Some(page) = page.filter(|page| !page.is_empty()) else { return Ok(()) };
            for row in page {
                after = row.position;
                let event = self.log().keys.event(&row)?;
                let record = AuditRecord { position: row.position, event };
                if filter.matches(&record.event) && show(record).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::keystore::model::caller::Caller;

    #[test]
    fn filters_pick_by_every_member() {
        let time = UNIX_EPOCH + Duration::from_secs(100);
        let principal = "arn:aws:iam::000000000000:user/unix/1000";
        let caller = Caller { at: Some(time), ..Caller::on_mount(1000, Vec::new()) };
        let mut event = Event::by(&caller, "Decrypt", "r".into());
        event.key = Some("arn:aws:kms:local:000000000000:key/abc".into());
        let at = |seconds: i64| Some(EventTime::from_millis(seconds * 1000));
        let some = |text: &str| Some(text.to_owned());
        let open = AuditFilter::default();
        for (filter, expected) in [
            (open.clone(), true),
            (AuditFilter { since: at(100), until: at(101), ..open.clone() }, true),
            (AuditFilter { since: at(101), ..open.clone() }, false),
            (AuditFilter { until: at(100), ..open.clone() }, false),
            (AuditFilter { principal: some("unix/1000"), ..open.clone() }, true),
            (AuditFilter { principal: some("1000"), ..open.clone() }, true),
            (AuditFilter { principal: some("000"), ..open.clone() }, false),
            (AuditFilter { principal: some(principal), ..open.clone() }, true),
            (AuditFilter { operation: some("decrypt"), ..open.clone() }, true),
            (AuditFilter { operation: some("Encrypt"), ..open.clone() }, false),
            (AuditFilter { key: some("abc"), ..open.clone() }, true),
            (AuditFilter { key: some("bc"), ..open.clone() }, false),
            (AuditFilter { result: some("Success"), ..open.clone() }, true),
            (AuditFilter { source: some("cli"), ..open.clone() }, false),
        ] {
            assert_eq!(filter.matches(&event), expected, "{filter:?}");
        }
        assert!(open.is_open());
    }
}
