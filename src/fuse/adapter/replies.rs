//! Answers that several requests share.

use fuser::{Errno, ReplyAttr, ReplyEntry};

use super::{Adapter, GENERATION, Reply};
use crate::fuse::convert::{file_attr, no_attr};
use crate::fuse::errno::errno;
use crate::volume::attr::Attr;

impl Adapter {
    pub(super) fn entry(&self, reply: ReplyEntry, made: Reply<Attr>) {
        match made {
            Ok(attr) => reply.entry(&self.ttl, &file_attr(&attr), GENERATION),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Names that do not exist are remembered by the kernel too, where nobody else makes them.
    pub(super) fn missing(&self, reply: ReplyEntry) {
        if self.shared {
            reply.error(Errno::ENOENT);
        } else {
            reply.entry(&self.ttl, &no_attr(), GENERATION);
        }
    }

    pub(super) fn attr(&self, reply: ReplyAttr, attr: Reply<Attr>) {
        match attr {
            Ok(attr) => reply.attr(&self.ttl, &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }
}
