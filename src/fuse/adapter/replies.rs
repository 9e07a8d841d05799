//! Answers that several requests share, and the one that carries contents.

use std::cell::RefCell;

use fuser::{
    AccessFlags, Errno, FileHandle, Generation, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
};
use zeroize::Zeroize;

use super::{Adapter, Reply};
use crate::fuse::convert::{file_attr, no_attr};
use crate::fuse::errno::errno;
use crate::volume::attr::Attr;

thread_local! {
    /// One buffer per thread: a reply takes a slice, and the volume fills a vector. It holds
    /// contents only while a request is answered.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    /// The contents of an open file from `offset`, at most `size` bytes.
    pub(super) fn contents(&self, reply: ReplyData, fh: FileHandle, offset: u64, size: u32) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let wanted = usize::try_from(size).unwrap_or(0);
            if buffer.len() < wanted {
                buffer.resize(wanted, 0);
            }
            let buffer = buffer.get_mut(..wanted).unwrap_or_default();
            match self.file(fh).and_then(|open| open.file.read(offset, buffer)) {
                Ok(count) => {
                    let read = buffer.get_mut(..count).unwrap_or_default();
                    reply.data(read);
                    read.zeroize();
                }
                Err(error) => {
                    reply.error(errno(&error));
                    buffer.zeroize();
                }
            }
        });
    }

    pub(super) fn entry(&self, reply: ReplyEntry, made: Reply<Attr>) {
        match made {
            Ok(attr) => reply.entry(&self.ttl, &file_attr(&attr), Generation(attr.generation)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Names that do not exist are remembered by the kernel too, where nobody else makes them.
    pub(super) fn missing(&self, reply: ReplyEntry) {
        if self.shared {
            reply.error(Errno::ENOENT);
        } else {
            reply.entry(&self.ttl, &no_attr(), Generation(0));
        }
    }

    /// Whether root may do this: everything but to run what nobody may run.
    pub(super) fn allowed_to_root(&self, reply: ReplyEmpty, ino: u64, mask: AccessFlags) {
        let runs = mask.contains(AccessFlags::X_OK);
        match if runs { self.volume().may_run(ino) } else { Ok(true) } {
            Ok(true) => reply.ok(),
            Ok(false) => reply.error(Errno::EACCES),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(super) fn attr(&self, reply: ReplyAttr, attr: Reply<Attr>) {
        match attr {
            Ok(attr) => reply.attr(&self.ttl, &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }
}
