//! Answers that list directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus, ReplyOpen,
};

use super::Adapter;
use crate::fuse::convert::{file_attr, file_type, no_attr};
use crate::fuse::errno::errno;
use crate::fuse::request::taken;
use crate::volume::{Detail, Listing};

impl Adapter {
    /// A stream of a directory, and what the kernel may do with what it lists.
    pub(super) fn stream_opened(&self, reply: ReplyOpen, ino: u64) {
        let opened = match self.keeps_listings {
            true => self.volume().open_listing(ino),
            false => self.volume().open_dir_stream(ino).map(|stream| (stream, Listing::Passing)),
        };
        match opened {
            Ok((stream, listing)) => {
                reply.opened(FileHandle(self.streams.add(stream)), listing_flags(listing));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// What a stream lists from `offset`, as far as the reply has room.
    pub(super) fn names(&self, mut reply: ReplyDirectory, fh: FileHandle, offset: u64) {
        let listed = self.stream(fh).and_then(|stream| {
            self.volume().read_dir(&stream, offset, Detail::Names, |entry| {
                let (ino, kind) = (INodeNo(entry.ino), file_type(entry.kind));
                taken(reply.add(ino, entry.next, kind, OsStr::from_bytes(&entry.name)))
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// The same, each entry as a lookup would answer it.
    pub(super) fn names_and_attributes(
        &self,
        mut reply: ReplyDirectoryPlus,
        fh: FileHandle,
        offset: u64,
    ) {
        let listed = self.stream(fh).and_then(|stream| {
            self.volume().read_dir(&stream, offset, Detail::Attributes, |entry| {
                let attr = match &entry.attr {
                    Some(attr) => file_attr(attr),
                    // The dots: the kernel takes no lookup of them, only number and kind.
                    None => {
                        let kind = file_type(entry.kind);
                        fuser::FileAttr { ino: INodeNo(entry.ino), kind, ..no_attr() }
                    }
                };
                let name = OsStr::from_bytes(&entry.name);
                let generation = Generation(entry.attr.map_or(0, |attr| attr.generation));
                taken(reply.add(attr.ino, entry.next, name, &self.ttl, &attr, generation))
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

fn listing_flags(listing: Listing) -> FopenFlags {
    match listing {
        Listing::Passing => FopenFlags::empty(),
        Listing::New => FopenFlags::FOPEN_CACHE_DIR,
        Listing::Kept => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
    }
}
