//! From an inode number alone to its inode, for file handles.
//!
//! The backing filesystem would open a file by its own handle, whatever directory it is in: the daemon
//! does not make that call, and a process that has taken it over cannot (`cli/daemon/calls.rs`). So a
//! number is looked for where its inode was last, and then in the whole tree, as names. Whether it is
//! the inode that the handle was made for is for the kernel to say, by the generation: that of the
//! backing inode.

use std::collections::{HashMap, HashSet};

use rustix::fs::FileType;

use crate::envelope::is_hidden;
use crate::volume::backing::accesses;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::listing::{RawName, read_chunk};
use crate::volume::engine::Volume;
use crate::volume::model::attr::{Attr, FileKind};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::inode::{Link, ROOT, Whereabouts};
use crate::volume::ops::reach::lookup::Entered;

/// How often what moves meanwhile is followed.
const ROUNDS: usize = 16;

impl Volume {
    /// The attributes of `ino`, if a way to it is known. The kernel then holds a lookup.
    ///
    /// # Errors
    /// `Stale` if it has no name any more; those of a lookup.
    pub fn look_up_number(&self, ino: u64) -> Result<Option<Attr>> {
        if ino == ROOT {
            // The kernel has it always, and gave it no generation.
            return self.attr(ROOT).map(|attr| Some(Attr { generation: 0, ..attr }));
        }
        match self.tree.inodes.whereabouts(ino) {
            Some(Whereabouts::Entry(link)) => self.enter_link(ino, &link),
            Some(Whereabouts::Pinned(_)) => Err(VolumeError::Stale),
            None => Ok(None),
        }
    }

    /// The same of the directory that `ino` is in.
    ///
    /// # Errors
    /// `Stale`.
    pub fn look_up_parent(&self, ino: u64) -> Result<Attr> {
        let parent = self.tree.inodes.parents(ino).first().copied();
        let parent = parent.ok_or(VolumeError::Stale)?;
        self.look_up_number(parent)?.ok_or(VolumeError::Stale)
    }

    /// Looks for inodes to which no way is known. The kernel then holds a lookup of each that is found.
    /// Takes as long as listing the tree, and ends early if `go_on` says no. What moves meanwhile is
    /// found; what is in a directory that cannot be read is not. Locks: none may be held.
    pub fn find_numbers(
        &self,
        wanted: &[u64],
        mut go_on: impl FnMut() -> bool,
    ) -> HashMap<u64, Attr> {
        let watch = self.tree.renames.watch();
        let mut search = Search {
            volume: self,
            wanted: wanted.iter().copied().collect(),
            found: HashMap::new(),
            dirs: vec![ROOT],
            seen: HashSet::from([ROOT]),
        };
        for parent in wanted.iter().filter_map(|ino| self.tree.inodes.last_parent(*ino)) {
            search.list(parent);
        }
        for _ in 0..ROUNDS {
            while let Some(dir) = search.dirs.pop() {
                if search.wanted.is_empty() || !go_on() {
                    return search.found;
                }
                search.list(dir);
            }
            let moved = watch.take();
            if moved.is_empty() {
                break;
            }
            for (ino, links) in moved {
                // What was in a directory that moved may have been passed over.
                search.seen.remove(&ino);
                links.iter().for_each(|link| search.look(ino, link));
            }
        }
        search.found
    }

    /// `None` if another inode is there by now, or none.
    fn enter_link(&self, ino: u64, link: &Link) -> Result<Option<Attr>> {
        let dir = self.dir(link.parent)?;
        match self.enter_entry(&dir, &link.name)? {
            Some(Entered { attr, .. }) if attr.ino == ino => Ok(Some(attr)),
            Some(Entered { attr, before }) => {
                self.take_back(attr.ino, before);
                Ok(None)
            }
            None => Ok(None),
        }
    }
}

struct Search<'a> {
    volume: &'a Volume,
    wanted: HashSet<u64>,
    found: HashMap<u64, Attr>,
    /// Directories that are to be listed.
    dirs: Vec<u64>,
    /// Those, and the ones that were.
    seen: HashSet<u64>,
}

impl Search<'_> {
    /// Looks through a directory; what cannot be read is passed over.
    fn list(&mut self, ino: u64) {
        if let Err(error) = self.try_list(ino) {
            log::debug!("inode {ino} is not searched: {error}");
        }
    }

    fn try_list(&mut self, ino: u64) -> Result<()> {
        let dir = self.volume.dir(ino)?;
        let stream = beneath::reopen_dir(&*dir)?;
        accesses::ignore(&stream);
        loop {
            let chunk = read_chunk(&stream)?;
            if chunk.is_empty() || self.wanted.is_empty() {
                return Ok(());
            }
            for raw in chunk {
                let RawName::Entry(name) = raw.name else { continue };
                let number = self.volume.tree.inodes.shown(raw.ino);
                if !is_hidden(name.bytes())
                    && (self.wanted.contains(&number) || is_dir(&dir, &name, raw.kind))
                {
                    self.look(number, &Link { parent: ino, name });
                }
            }
        }
    }

    /// Looks at an entry: it is what is wanted, or a directory in which that may be.
    fn look(&mut self, ino: u64, link: &Link) {
        let entered = self.volume.dir(link.parent).and_then(|dir| {
            // The locks of an entry are those of a lookup.
            self.volume.enter_entry(&dir, &link.name)
        });
        let Ok(Some(Entered { attr, before })) = entered else { return };
        if attr.kind == FileKind::Directory && self.seen.insert(attr.ino) {
            self.dirs.push(attr.ino);
        }
        if attr.ino == ino && self.wanted.remove(&ino) {
            self.found.insert(ino, attr);
        } else {
            // Directories stay known (`Exported`).
            self.volume.take_back(attr.ino, before);
        }
    }
}

/// For backing filesystems that do not say the kind in the entry as well.
fn is_dir(dir: &Dir, name: &BackingName, kind: FileType) -> bool {
    match kind {
        FileType::Directory => true,
        FileType::Unknown => beneath::stat(dir, name)
            .is_ok_and(|stat| FileKind::from_mode(stat.st_mode) == Some(FileKind::Directory)),
        _ => false,
    }
}
