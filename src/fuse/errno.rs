//! From the volume's errors to errno: the only place where that happens.

use fuser::Errno;

use crate::volume::VolumeError;

/// The errno for an error of the volume. What points at damage or a key is logged as well.
pub(super) fn errno(error: &VolumeError) -> Errno {
    match error {
        VolumeError::Io(errno) => Errno::from_i32(errno.raw_os_error()),
        VolumeError::Tampered(_) => logged(error, libc::EBADMSG),
        VolumeError::Misplaced(_) => logged(error, libc::EBADMSG),
        VolumeError::Twin(_) => Errno::from_i32(libc::EEXIST),
        VolumeError::Lost(_) => logged(error, libc::EIO),
        VolumeError::ForeignKey { .. } => logged(error, libc::EACCES),
        VolumeError::KeyUnusable(_) => Errno::from_i32(libc::ENOKEY),
        VolumeError::Denied(_) => Errno::from_i32(libc::EACCES),
        VolumeError::WrappedElsewhere(_) => logged(error, libc::ENOKEY),
        VolumeError::KmsUnreachable(_) => Errno::from_i32(libc::EHOSTDOWN),
        VolumeError::KmsDenied(_) => logged(error, libc::EACCES),
        VolumeError::Kms(_) => logged(error, libc::EIO),
        VolumeError::Keystore(_) => logged(error, libc::EIO),
        VolumeError::Newer(_) => logged(error, libc::EOPNOTSUPP),
        VolumeError::NotAVolume(_) => logged(error, libc::EIO),
        VolumeError::InUse => Errno::from_i32(libc::EBUSY),
        VolumeError::NameTooLong => Errno::from_i32(libc::ENAMETOOLONG),
        VolumeError::ReservedName => Errno::from_i32(libc::EPERM),
        VolumeError::CrossPolicy | VolumeError::LinkedElsewhere | VolumeError::FormerKeys => {
            Errno::from_i32(libc::EXDEV)
        }
        VolumeError::WouldOpenVault | VolumeError::OpenVault(_) => logged(error, libc::EPERM),
        VolumeError::ReadOnly => Errno::from_i32(libc::EROFS),
        VolumeError::TooLarge => Errno::from_i32(libc::EFBIG),
        VolumeError::NotFound => Errno::from_i32(libc::ENOENT),
        VolumeError::Stale => Errno::from_i32(libc::ESTALE),
        VolumeError::Oversized(_) => logged(error, libc::EIO),
        VolumeError::NotEmpty => Errno::from_i32(libc::ENOTEMPTY),
        VolumeError::Random | VolumeError::NoProc | VolumeError::Unanchored(_) => {
            logged(error, libc::EIO)
        }
    }
}

fn logged(error: &VolumeError, errno: i32) -> Errno {
    log::error!("{error}");
    Errno::from_i32(errno)
}
