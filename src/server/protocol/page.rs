//! Lists in pages: an opaque marker says after which entry the next page begins.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};

use super::error::Fault;

/// One page of a list.
#[derive(Debug)]
pub(in crate::server) struct Page<T> {
    /// Its entries.
    pub(in crate::server) items: Vec<T>,
    /// Where the next one begins, unless this is the last.
    pub(in crate::server) next: Option<String>,
}

impl<T> Page<T> {
    /// The answer of a list operation: the entries as `member`, and how to go on.
    pub(in crate::server) fn answer(self, member: &str, entry: impl FnMut(T) -> Value) -> Value {
        let mut answer = Map::new();
        answer.insert(member.to_owned(), self.items.into_iter().map(entry).collect());
        answer.insert("Truncated".to_owned(), self.next.is_some().into());
        if let Some(next) = self.next {
            answer.insert("NextMarker".to_owned(), next.into());
        }
        Value::Object(answer)
    }
}

/// The page that a checked request asks for, by its `Limit` and `Marker`. Entries are ordered by
/// their names, so that an entry which comes or goes meanwhile neither hides nor repeats another.
/// Errors: `InvalidMarkerException` for a marker that this operation did not give.
pub(in crate::server) fn cut<T>(
    operation: &str,
    request: &Value,
    usual: usize,
    mut items: Vec<T>,
    name: impl Fn(&T) -> String,
) -> Result<Page<T>, Fault> {
    items.sort_by_cached_key(&name);
    if let Some(marker) = request["Marker"].as_str() {
        let last = read(operation, marker)?;
        items.retain(|item| name(item) > last);
    }
    let limit = request["Limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(usual);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| written(operation, &name(last)));
    Ok(Page { items, next })
}

fn written(operation: &str, last: &str) -> String {
    Base64UrlUnpadded::encode_string(format!("{VERSION}{operation}:{last}").as_bytes())
}

fn read(operation: &str, marker: &str) -> Result<String, Fault> {
    let decoded = Base64UrlUnpadded::decode_vec(marker).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(|text| text.strip_prefix(VERSION)?.strip_prefix(operation)?.strip_prefix(':'))
        .map(str::to_owned)
        .ok_or_else(|| Fault::new("InvalidMarkerException", "The marker is not valid."))
}

/// What markers of this form begin with.
const VERSION: &str = "1:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn all_pages(items: &[String], limit: usize) -> Vec<String> {
        let mut seen = Vec::new();
        let mut request = json!({ "Limit": limit });
        loop {
            let page = cut("ListKeys", &request, 100, items.to_vec(), Clone::clone).unwrap();
            assert!(page.items.len() <= limit);
            seen.extend(page.items);
            match page.next {
                Some(next) => request["Marker"] = next.into(),
                None => return seen,
            }
        }
    }

    proptest! {
        #[test]
        fn pages_show_each_entry_once(
            items in proptest::collection::btree_set(".{0,8}", 0..40),
            limit in 1_usize..50,
        ) {
            let items: Vec<String> = items.into_iter().collect();
            prop_assert_eq!(all_pages(&items, limit), items);
        }
    }

    #[test]
    fn a_marker_of_another_list_or_of_nobody_is_refused() {
        let items = vec!["a".to_owned(), "b".to_owned()];
        let page =
            cut("ListKeys", &json!({ "Limit": 1 }), 100, items.clone(), Clone::clone).unwrap();
        for marker in [page.next.unwrap().as_str(), "nobody's", "", "AAAA"] {
            let request = json!({ "Marker": marker });
            let error = cut("ListAliases", &request, 100, items.clone(), Clone::clone).unwrap_err();
            assert_eq!(error.name(), "InvalidMarkerException");
        }
    }
}
