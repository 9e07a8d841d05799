//! What is asked by ioctl(2): the flags of chattr(1), in the older form and in that of XFS.

use std::thread::JoinHandle;

use fuser::{Errno, KernelConfig, ReplyIoctl};
use parking_lot::Mutex;
use rustix::ioctl::opcode;

use super::Adapter;
use crate::fuse::errno::errno;
use crate::volume::InodeFlags;

/// Who sets flags, and whether anybody may.
#[derive(Debug, Default)]
pub(super) struct Flags {
    checked: bool,
    setting: Mutex<Vec<JoinHandle<()>>>,
}

impl Flags {
    /// From Linux 5.14 on it is certain that the kernel asks who owns the inode, and whether whoever
    /// makes it immutable has `CAP_LINUX_IMMUTABLE`. Before, requests came here unchecked.
    pub(super) fn learn(&mut self, config: &KernelConfig) {
        let version = config.kernel_abi();
        self.checked = (version.0, version.1) >= CHECKED;
    }

    /// Waits for requests that nobody else will wait for any more.
    pub(super) fn finish(&self) {
        let setting = std::mem::take(&mut *self.setting.lock());
        setting.into_iter().for_each(|one| drop(one.join()));
    }
}

impl Adapter {
    /// Answers an ioctl(2).
    pub(super) fn asked(&self, reply: ReplyIoctl, ino: u64, request: u32, data: &[u8]) {
        let form = match request {
            GET_FLAGS | SET_FLAGS => Form::Word,
            GET_XFLAGS | SET_XFLAGS => Form::Xfs,
            // Whoever trims asks for the whole filesystem, of which the vault is a part.
            TRIM => return reply.error(Errno::EOPNOTSUPP),
            // What programs try on any file (is it a terminal?): the usual answer.
            _ => return reply.error(Errno::ENOTTY),
        };
        if !self.flags.checked {
            return reply.error(Errno::ENOTTY);
        }
        if matches!(request, GET_FLAGS | GET_XFLAGS) {
            return match self.volume().inode_flags(ino) {
                Ok(flags) => reply.ioctl(0, &form.encode(flags)),
                Err(error) => reply.error(errno(&error)),
            };
        }
        match form.parse(data) {
            Some(flags) => self.set_flags(reply, ino, flags),
            None => reply.error(Errno::EOPNOTSUPP),
        }
    }

    /// On a thread of its own: the kernel may have to write dirty pages back first, by requests that
    /// the others answer.
    fn set_flags(&self, reply: ReplyIoctl, ino: u64, flags: InodeFlags) {
        self.note();
        let volume = self.volume.clone();
        let set = move || match volume.set_inode_flags(ino, flags) {
            Ok(()) => reply.ioctl(0, &[]),
            Err(error) => reply.error(errno(&error)),
        };
        let mut setting = self.flags.setting.lock();
        setting.retain(|one| !one.is_finished());
        // Without a thread the reply goes, which is an error.
        setting.extend(std::thread::Builder::new().name("flags".to_owned()).spawn(set));
    }
}

/// How flags are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS`: 32 bits.
    Word,
    /// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`: `struct fsxattr`, whose other fields are no flags.
    Xfs,
}

#[allow(clippy::host_endian_bytes, reason = "programs pass numbers as their processor has them")]
impl Form {
    fn encode(self, flags: InodeFlags) -> Vec<u8> {
        let bits = self.bits();
        let all = [flags.immutable, flags.no_dump, flags.no_atime];
        let set = all.into_iter().zip(bits).filter(|(on, _)| *on);
        let word = set.fold(0, |word: u32, (_, bit)| word | bit).to_ne_bytes();
        match self {
            Self::Word => word.to_vec(),
            Self::Xfs => [&word[..], &[0; FSXATTR_LEN - 4]].concat(),
        }
    }

    /// `None` if anything is asked for that cannot be kept.
    fn parse(self, data: &[u8]) -> Option<InodeFlags> {
        let (word, rest) = data.split_first_chunk::<4>()?;
        let word = u32::from_ne_bytes(*word);
        let [immutable, no_dump, no_atime] = self.bits();
        let known = word & !(immutable | no_dump | no_atime) == 0;
        let plain = self == Self::Word || rest.iter().all(|byte| *byte == 0);
        let is_set = |bit| word & bit != 0;
        let flags = InodeFlags {
            immutable: is_set(immutable),
            no_dump: is_set(no_dump),
            no_atime: is_set(no_atime),
        };
        (known && plain).then_some(flags)
    }

    /// Immutable, no dump, no access time: see linux/fs.h.
    const fn bits(self) -> [u32; 3] {
        match self {
            Self::Word => [0x10, 0x40, 0x80],
            Self::Xfs => [0x8, 0x80, 0x40],
        }
    }
}

const FSXATTR_LEN: usize = 28;
const GET_FLAGS: u32 = opcode::read::<libc::c_long>(b'f', 1);
const SET_FLAGS: u32 = opcode::write::<libc::c_long>(b'f', 2);
const GET_XFLAGS: u32 = opcode::read::<[u8; FSXATTR_LEN]>(b'X', 31);
const SET_XFLAGS: u32 = opcode::write::<[u8; FSXATTR_LEN]>(b'X', 32);
const TRIM: u32 = opcode::read_write::<[u64; 3]>(b'X', 121);
/// The protocol of Linux 5.14.
const CHECKED: (u32, u32) = (7, 34);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::host_endian_bytes, reason = "as above")]
    fn both_forms_tell_the_same_and_what_cannot_be_kept_is_refused() {
        for bits in 0..8_u8 {
            let [immutable, no_dump, no_atime] = [1, 2, 4].map(|bit| bits & bit != 0);
            let flags = InodeFlags { immutable, no_dump, no_atime };
            for form in [Form::Word, Form::Xfs] {
                assert_eq!(form.parse(&form.encode(flags)), Some(flags), "{form:?}");
            }
        }
        let append = 0x20_u32.to_ne_bytes();
        assert_eq!(Form::Word.parse(&append), None);
        let mut project = [0; FSXATTR_LEN];
        project[12] = 1;
        assert_eq!(Form::Xfs.parse(&project), None);
        assert_eq!(Form::Xfs.parse(&[0; 3]), None);
    }

    #[test]
    fn the_numbers_of_requests_are_those_of_the_kernel() {
        assert_eq!((GET_XFLAGS, SET_XFLAGS, TRIM), (0x801c_581f, 0x401c_5820, 0xc018_5879));
        #[cfg(target_pointer_width = "64")]
        assert_eq!((GET_FLAGS, SET_FLAGS), (0x8008_6601, 0x4008_6602));
    }
}
