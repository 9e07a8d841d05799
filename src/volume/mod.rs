//! Rank 2: a mounted tree without a kernel.
//!
//! [`Volume`] is the one thing that the layers above call. Its parts: the namespace (inodes,
//! directories, names, attributes), the open files with their contents, the keyring, and the
//! session that holds the vault. Background threads sync what stays dirty, seal what is closed, and
//! watch the keystore (`jobs`).
//!
//! Imports go down this list, and those of one line do not see each other: `model`; `backing`;
//! `journal`; `keys`, `content`; `session`; `access`, `namespace`; `files`; `engine`; `ops`; `jobs`.
//! Nothing below `engine` knows [`Volume`].

mod access;
pub mod backing;
pub mod content;
mod engine;
mod files;
mod jobs;
pub mod journal;
mod keys;
mod model;
mod namespace;
mod ops;
mod session;

pub use access::exposure::exposure;
pub use backing::root::open_root;
pub use backing::small_blocks::{SmallBlocks, small_blocks};
pub use engine::{KernelCache, Volume};
pub use files::dir_stream::DirStream;
pub use files::file::{File, FileHandle, Origin};
pub use files::file_key::FilePolicy;
pub use files::open_files::OpenFiles;
pub use jobs::adopt::Adoption;
pub use jobs::check::report::{CheckReport, Problem, Repair};
pub use jobs::flush::Ended;
pub use jobs::recovery::RecoveryReport;
pub use jobs::references::{Needed, References};
pub use jobs::rewrap::{RewrapJob, RewrapReport, Strangers};
pub use jobs::upkeep::Upkeep;
pub use keys::keyring::Keyring;
pub use keys::local::LocalKeys;
pub use keys::remote;
pub use keys::service::{KeyHealth, KeyService};
pub use model::attr;
pub use model::caller::Caller;
pub use model::clock::ctime;
pub use model::error::{Result, VolumeError};
pub use model::errseq::{Heard, WriteErrors};
pub use model::exposure::Exposure;
pub use model::flags::InodeFlags;
pub use model::misplaced::Misplaced;
pub use model::options::AccessTimes;
pub use model::options::Options;
pub use model::options::PageJournaling;
pub use namespace::inode::ROOT;
pub use namespace::listings::Listing;
pub use namespace::tree::Space;
pub use ops::attributes::xattr::SetMode;
pub use ops::contents::access_time::AccessTime;
pub use ops::contents::io::Allocate;
pub use ops::contents::open::OpenFor;
pub use ops::contents::open::Opened;
pub use ops::contents::privileges::Privileges;
pub use ops::names::create::NewNode;
pub use ops::names::readdir::Detail;
pub use ops::names::readdir::DirEntry;
pub use ops::names::readdir::Sink;
pub use ops::names::rename::RenameHow;
pub use session::lock::{Session, is_free};
