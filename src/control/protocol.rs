//! The lines that cross the socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a command asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Facts about the mount.
    Status,
    /// Counters of the daemon, as text.
    Metrics,
    /// Wrap data keys anew; events tell the progress.
    Rewrap {
        /// Only files under this key.
        key: Option<String>,
        /// The key to move to; none keeps each file's own key.
        to: Option<String>,
        /// Send an event for each changed file.
        list: bool,
        /// Also files under a key that their directory does not accept.
        #[serde(default)]
        take_in: bool,
        /// The command answers each changed file with a line end before the file is changed.
        #[serde(default)]
        confirm: bool,
    },
    /// Count which keys and materials the volume refers to.
    References,
    /// The key policy of a directory.
    PolicyShow {
        /// The directory.
        dir: DirRef,
    },
    /// Give a directory its own key.
    PolicySet {
        /// The directory.
        dir: DirRef,
        /// The key.
        key: String,
        /// What happens to files that come from under another key: rewrap, exdev or keep.
        #[serde(default)]
        cross: Option<String>,
    },
    /// Why a directory is not in its place, and what taking it in means.
    AdoptShow {
        /// The directory.
        dir: DirRef,
    },
    /// Take in a directory where it is.
    Adopt {
        /// The directory.
        dir: DirRef,
    },
    /// Write everything to disk.
    Sync,
    /// Tell how the session ended, once the mount is gone.
    AwaitEnd,
}

/// A directory in the mount. A path would not do: bind mounts, and what is mounted inside, give it
/// another meaning for whoever asks than for the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirRef {
    /// Its inode number, which stays known as long as whoever asks holds it open.
    pub inode: u64,
    /// What messages call it.
    pub name: String,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Still at it.
    Event(Event),
    /// Finished: the result.
    Done(Value),
    /// Failed.
    Failed(Failure),
}

/// News of a long operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// So many files are done, of so many where that is known.
    Progress {
        /// Files done.
        done: u64,
        /// Files in all.
        total: Option<u64>,
    },
    /// The ciphertext file with this path, from the root of the vault, is changed next.
    Changed(String),
    /// The mount is still there; how its session ends will be told.
    Waiting,
    /// The session ended, or could not be ended.
    Ended(Option<Failure>),
}

/// A failure as the command will show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code of the command.
    pub exit: u8,
    /// What failed.
    pub what: String,
    /// What the user can do.
    pub advice: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_they_are_documented() {
        let line = serde_json::to_string(&Request::Status).unwrap();
        assert_eq!(line, r#"{"op":"status"}"#);
        let line = r#"{"op":"policy-set","dir":{"inode":7,"name":"a"},"key":"alias/x"}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        let (dir, key) = (DirRef { inode: 7, name: "a".into() }, "alias/x".to_owned());
        let wanted = Request::PolicySet { dir, key, cross: None };
        assert_eq!(request, wanted);
    }

    #[test]
    fn an_unknown_request_is_an_error() {
        assert!(serde_json::from_str::<Request>(r#"{"op":"format"}"#).is_err());
    }
}
