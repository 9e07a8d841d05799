//! What the keystore answered about permissions since it last changed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::id::{FileId, KeyId};
use crate::keystore::{Action, Verdict};

/// Answers remembered at most.
const MOST: usize = 16_384;

/// Answers of one state of the keystore.
#[derive(Default)]
pub(in crate::volume) struct DecisionCache(RwLock<Cached>);

#[derive(Default)]
struct Cached {
    /// The count of changes that they belong to.
    changes: u64,
    answers: HashMap<DecisionRequest, Decision>,
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
pub(in crate::volume) struct Decision {
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

impl Decision {
    /// Nobody can say which groups the user is in, and some rule is about groups.
    pub(in crate::volume) fn unknown_groups() -> Self {
        let why = "rules of the keystore are about groups, and those of the process are not known";
        Self { denied: Some(why.into()) }
    }
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self { denied: verdict.denied.map(Into::into) }
    }
}

impl DecisionCache {
    /// An answer that holds for all files, else one for this file.
    pub(in crate::volume) fn find(
        &self,
        changes: u64,
        question: &mut DecisionRequest,
        file: Option<FileId>,
    ) -> Option<Decision> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.changes != changes {
            return None;
        }
        if let Some(answer) = known.answers.get(question) {
            return Some(answer.clone());
        }
        question.file = Some(file?);
        known.answers.get(question).cloned()
    }

    /// Remembers an answer, unless something changed since the question was asked.
    pub(in crate::volume) fn keep(
        &self,
        changes: u64,
        question: DecisionRequest,
        verdict: &Verdict,
        still: impl Fn() -> bool,
    ) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.changes != changes {
            if !still() {
                return;
            }
            *known = Cached { changes, ..Cached::default() };
        }
        if known.answers.len() >= MOST {
            known.answers.clear();
        }
        known.answers.insert(question, Decision::from(verdict.clone()));
        known.until = [known.until, verdict.until].into_iter().flatten().min();
    }

    /// True when a date has come on which an answer may change.
    pub(in crate::volume) fn is_due(&self, now: SystemTime) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);

    fn question(uid: u32) -> DecisionRequest {
        DecisionRequest::about_all_files(uid, Vec::new(), Action::Decrypt, KEY)
    }

    fn verdict(denied: Option<&str>, until: Option<u64>) -> Verdict {
        let until = until.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Verdict { denied: denied.map(str::to_owned), until, any_context: true }
    }

    #[test]
    fn an_answer_for_all_files_is_found_for_each() {
        let answers = DecisionCache::default();
        answers.keep(1, question(5), &verdict(None, None), || true);
        let file = Some(FileId::from_bytes([2; 16]));
        assert!(answers.find(1, &mut question(5), file).unwrap().denied.is_none());
        assert!(answers.find(1, &mut question(6), file).is_none());
    }

    #[test]
    fn an_answer_for_one_file_is_for_no_other() {
        let answers = DecisionCache::default();
        let file = |byte| Some(FileId::from_bytes([byte; 16]));
        let about = DecisionRequest { file: file(2), ..question(5) };
        answers.keep(1, about, &verdict(Some("no"), None), || true);
        assert!(answers.find(1, &mut question(5), file(2)).unwrap().denied.is_some());
        assert!(answers.find(1, &mut question(5), file(3)).is_none());
        assert!(answers.find(1, &mut question(5), None).is_none());
    }

    #[test]
    fn a_change_ends_all_answers_and_late_ones_are_not_kept() {
        let answers = DecisionCache::default();
        answers.keep(1, question(5), &verdict(None, None), || true);
        assert!(answers.find(2, &mut question(5), None).is_none());
        answers.keep(2, question(6), &verdict(None, None), || true);
        answers.keep(1, question(5), &verdict(None, None), || false);
        assert!(answers.find(2, &mut question(5), None).is_none());
        assert!(answers.find(2, &mut question(6), None).is_some());
    }

    #[test]
    fn the_first_date_counts() {
        let answers = DecisionCache::default();
        for (uid, until) in [(1, Some(30)), (2, None), (3, Some(20))] {
            answers.keep(1, question(uid), &verdict(None, until), || true);
        }
        let at = |seconds| answers.is_due(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!((at(19), at(20)), (false, true));
    }
}
