//! `kmsfs cat`: one file of a vault on stdout, without a mount.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::cli::args::{CatArgs, Global};
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::{failure, paths, trust, vault};
use crate::cli::report::exit::{CliError, Exit};
use crate::volume::attr::FileKind;
use crate::volume::content::Access;
use crate::volume::{Options, ROOT, Volume, VolumeError};

/// Writes the file.
pub(in crate::cli) fn run(args: &CatArgs, global: &Global) -> Result<Exit, CliError> {
    let vault = paths::real(&args.vault)?;
    Volume::peek(&vault).map_err(|error| failure::volume(&vault, &error))?;
    let keys = KeysFrom::open(&args.kms, global)?;
    let options = Options { read_only: true, ..trust::options() };
    let volume = vault::open(&keys, &vault, options)?;
    let ino = find(&volume, &args.path).map_err(|error| keys.failed(&args.path, &error))?;
    copy(&volume, &keys, ino, &args.path)?;
    Ok(Exit::Ok)
}

/// The inode number of a regular file.
pub(in crate::cli) fn find(volume: &Volume, path: &Path) -> Result<u64, VolumeError> {
    let (ino, kind) = walk(volume, path)?;
    match kind {
        FileKind::Regular => Ok(ino),
        FileKind::Directory => Err(rustix::io::Errno::ISDIR.into()),
        _ => Err(rustix::io::Errno::INVAL.into()),
    }
}

/// What stands at a plaintext path from the root of the volume.
pub(in crate::cli) fn walk(volume: &Volume, path: &Path) -> Result<(u64, FileKind), VolumeError> {
    let mut at = (ROOT, FileKind::Directory);
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                let attr = volume.lookup(at.0, name.as_bytes())?.ok_or(VolumeError::NotFound)?;
                at = (attr.ino, attr.kind);
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(VolumeError::NotFound),
        }
    }
    Ok(at)
}

fn copy(volume: &Volume, keys: &KeysFrom, ino: u64, path: &Path) -> Result<(), CliError> {
    let failed = |error| keys.failed(path, &error);
    let opened = volume.open_handle(ino, Access::ReadOnly).map_err(failed)?;
    let mut stdout = io::stdout().lock();
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    loop {
        let length = opened.handle.file.read(offset, &mut buffer).map_err(failed)?;
        let Some(read) = buffer.get(..length).filter(|read| !read.is_empty()) else { break };
        if let Err(error) = stdout.write_all(read) {
            // `kmsfs cat ... | head` has seen enough.
            if error.kind() == io::ErrorKind::BrokenPipe {
                break;
            }
            return Err(CliError::io("stdout", &error));
        }
        offset += length as u64;
    }
    volume.close(opened.handle);
    stdout.flush().map_err(|error| CliError::io("stdout", &error))
}

const BUFFER: usize = 1 << 20;
