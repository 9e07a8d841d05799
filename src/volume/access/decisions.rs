//! What the keystore answered about permissions since it last changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;

use crate::id::{FileId, KeyId};
use crate::keystore::{Action, Decision, UNKNOWN_PROCESS};

/// Decisions remembered at most.
const MOST: usize = 16_384;

/// Decisions of one state of the keystore.
#[derive(Default)]
pub(in crate::volume) struct DecisionCache(RwLock<Cached>);

#[derive(Default)]
struct Cached {
    /// The count of changes that they belong to.
    changes: u64,
    answers: HashMap<DecisionRequest, CachedDecision>,
    /// The first date on which one of them may change.
    until: Option<SystemTime>,
}

/// May a user do this with files under a key?
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::volume) struct DecisionRequest {
    uid: u32,
    pub(in crate::volume) groups: Vec<u32>,
    action: Action,
    key: KeyId,
    /// `None` when the answer is the same for all files under the key.
    pub(in crate::volume) file: Option<FileId>,
}

/// Why not, in the keystore's words; or yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) struct CachedDecision {
    pub(in crate::volume) denied: Option<Arc<str>>,
}

impl DecisionRequest {
    pub(in crate::volume) fn about_all_files(
        uid: u32,
        groups: Vec<u32>,
        action: Action,
        key: KeyId,
    ) -> Self {
        Self { uid, groups, action, key, file: None }
    }
}

impl CachedDecision {
    /// Nobody can say who asks, and some rule depends on it.
    pub(in crate::volume) fn unknown_process() -> Self {
        Self { denied: Some(UNKNOWN_PROCESS.into()) }
    }
}

impl From<Decision> for CachedDecision {
    fn from(decision: Decision) -> Self {
        Self { denied: decision.denied.map(Into::into) }
    }
}

impl DecisionCache {
    /// An answer that holds for all files, else one for this file.
    pub(in crate::volume) fn find(
        &self,
        changes: u64,
        request: &mut DecisionRequest,
        file: Option<FileId>,
    ) -> Option<CachedDecision> {
        let known = self.0.read();
        if known.changes != changes {
            return None;
        }
        if let Some(answer) = known.answers.get(request) {
            return Some(answer.clone());
        }
        request.file = Some(file?);
        known.answers.get(request).cloned()
    }

    /// Remembers an answer, unless something changed since the request was asked.
    pub(in crate::volume) fn keep(
        &self,
        changes: u64,
        request: DecisionRequest,
        decision: &Decision,
        still: impl Fn() -> bool,
    ) {
        let mut known = self.0.write();
        if known.changes != changes {
            if !still() {
                return;
            }
            *known = Cached { changes, ..Cached::default() };
        }
        if known.answers.len() >= MOST {
            known.answers.clear();
        }
        known.answers.insert(request, CachedDecision::from(decision.clone()));
        known.until = [known.until, decision.until].into_iter().flatten().min();
    }

    /// True when a date has come on which an answer may change.
    pub(in crate::volume) fn is_due(&self, now: SystemTime) -> bool {
        let known = self.0.read();
        known.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);

    fn request(uid: u32) -> DecisionRequest {
        DecisionRequest::about_all_files(uid, Vec::new(), Action::Decrypt, KEY)
    }

    fn decision(denied: Option<&str>, until: Option<u64>) -> Decision {
        let until = until.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Decision { denied: denied.map(str::to_owned), until, any_context: true }
    }

    #[test]
    fn an_answer_for_all_files_is_found_for_each() {
        let answers = DecisionCache::default();
        answers.keep(1, request(5), &decision(None, None), || true);
        let file = Some(FileId::from_bytes([2; 16]));
        assert!(answers.find(1, &mut request(5), file).unwrap().denied.is_none());
        assert!(answers.find(1, &mut request(6), file).is_none());
    }

    #[test]
    fn an_answer_for_one_file_is_for_no_other() {
        let answers = DecisionCache::default();
        let file = |byte| Some(FileId::from_bytes([byte; 16]));
        let about = DecisionRequest { file: file(2), ..request(5) };
        answers.keep(1, about, &decision(Some("no"), None), || true);
        assert!(answers.find(1, &mut request(5), file(2)).unwrap().denied.is_some());
        assert!(answers.find(1, &mut request(5), file(3)).is_none());
        assert!(answers.find(1, &mut request(5), None).is_none());
    }

    #[test]
    fn a_change_ends_all_answers_and_late_ones_are_not_kept() {
        let answers = DecisionCache::default();
        answers.keep(1, request(5), &decision(None, None), || true);
        assert!(answers.find(2, &mut request(5), None).is_none());
        answers.keep(2, request(6), &decision(None, None), || true);
        answers.keep(1, request(5), &decision(None, None), || false);
        assert!(answers.find(2, &mut request(5), None).is_none());
        assert!(answers.find(2, &mut request(6), None).is_some());
    }

    #[test]
    fn the_first_date_counts() {
        let answers = DecisionCache::default();
        for (uid, until) in [(1, Some(30)), (2, None), (3, Some(20))] {
            answers.keep(1, request(uid), &decision(None, until), || true);
        }
        let at = |seconds| answers.is_due(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!((at(19), at(20)), (false, true));
    }
}
