//! The open files: one [`File`] for each inode, however many have it open.
//!
//! A file that users had open *idles* after its last close: it stays open for a few seconds, so that
//! whoever opens it again needs neither its header nor its key again. An idle file counts as closed to
//! everybody else. It is given up when anything about it is not as it was left, when its last name or its
//! key goes, and for one that was closed later.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{OFlags, Stat, fstat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::file::{File, Origin};
use super::file_key::{FileKeySource, FilePolicy};
use super::table::{FoundState, Slot, Table};
use crate::envelope::layout::plain_size;
use crate::id::KeyId;
use crate::volume::backing::accesses;
use crate::volume::backing::contents::{Backing, BackingFile};
use crate::volume::backing::handle::open_noatime;
use crate::volume::content::{Access, Content, Damaged, Mutability, Shared};
use crate::volume::keys::keyring::Keyring;
use crate::volume::model::by_inode::ByInode;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::inode::InodeTable;
use crate::volume::session::times::{ShownTimes, TimedFile};

/// The table of open files.
pub struct OpenFiles {
    keyring: Arc<Keyring>,
    shared: Arc<Shared>,
    times: Arc<ShownTimes>,
    access: Access,
    table: Mutex<Table>,
    /// Files that turned out to have another size than their backing files told.
    resized: Mutex<Vec<u64>>,
    outdated: Mutex<BTreeSet<u64>>,
    /// Held while an inode's first open or last close is under way; lock order: before `table`.
    turns: ByInode<Mutex<()>>,
}

const TURNS: usize = 64;
/// How many files idle at most: each takes a descriptor, and all together one in this many.
const MOST_IDLE: usize = 256;
const IDLE_SHARE: u64 = 8;
/// Closed files that may wait for a sync: each takes about a KiB.
const MOST_PARKED: usize = 16 * 1024;

/// What becomes of a file after its last handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// It closes.
    Closes,
    /// It stays open for a while, for whoever opens it next.
    Idles,
}

/// What a sync of the whole filesystem means for a file that nobody has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) enum Parked {
    /// It has nothing more to be synced.
    Clean,
    /// It was written since, or somebody has opened it.
    Dirty,
    /// The sync says nothing of it.
    Doubtful,
}

impl std::fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFiles").finish_non_exhaustive()
    }
}

impl OpenFiles {
    /// `idle`: how many files may idle.
    pub(in crate::volume) fn new(
        keyring: Arc<Keyring>,
        shared: Arc<Shared>,
        times: Arc<ShownTimes>,
        inodes: Arc<InodeTable>,
        (access, idle): (Access, usize),
    ) -> Self {
        let turns = ByInode::new(TURNS);
        let table = Mutex::new(Table::with_room(idle, inodes));
        let (resized, outdated) = (Mutex::default(), Mutex::default());
        Self { keyring, shared, times, access, table, resized, outdated, turns }
    }

    /// How many files may idle by the descriptors that this process may have.
    pub(in crate::volume) fn idle_room() -> usize {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(limit / IDLE_SHARE).unwrap_or(usize::MAX).min(MOST_IDLE)
    }

    /// What all files share.
    pub(in crate::volume) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// True if a write or sync of some file failed: the session must not end as a clean one.
    pub(in crate::volume) fn in_doubt(&self) -> bool {
        self.shared.in_doubt()
    }

    /// The open files without a name.
    pub(in crate::volume) fn nameless(&self) -> Vec<Arc<File>> {
        let nameless = |file: &Arc<File>| fstat(file.backing_fd()).is_ok_and(|s| s.st_nlink == 0);
        self.all().into_iter().filter(nameless).collect()
    }

    /// Opens inode `ino`, or counts another handle of it. Every success needs a [`Self::release`].
    ///
    /// `reopen` opens the backing file with the flags it is given.
    ///
    /// # Errors
    /// `KeyUnusable`, `ForeignKey`, `Tampered`, `Lost`; those of `reopen`.
    pub fn open(
        &self,
        ino: u64,
        policy: &FilePolicy,
        reopen: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<Arc<File>> {
        self.open_for(ino, (policy, Damaged::Refused, Stay::Closes), reopen)
    }

    /// The same for a user, who may open it again soon; says what to do with a file that is damaged.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(in crate::volume) fn open_or_refuse(
        &self,
        ino: u64,
        (policy, damaged): (&FilePolicy, Damaged),
        reopen: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<Arc<File>> {
        self.open_for(ino, (policy, damaged, Stay::Idles), reopen)
    }

    fn open_for(
        &self,
        ino: u64,
        (policy, damaged, stay): (&FilePolicy, Damaged, Stay),
        reopen: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<Arc<File>> {
        let _turn = self.turn(ino);
        if let Some(file) = self.open_already(ino, policy)? {
            return Ok(file);
        }
        let (fd, unwritable) = self.open_backing(reopen)?;
        let writable = unwritable.is_none();
        let file = self.open_content(ino, (fd, unwritable), policy, damaged)?;
        let idles = stay == Stay::Idles && writable;
        self.lock().add(ino, Slot::new(file.clone(), idles));
        // A key that was revoked on its way here was in none of the files that were wiped.
        if let Err(error) = file.check(Origin::Caller) {
            file.content().wipe();
            drop(file);
            self.lock().give_back(ino);
            return Err(error);
        }
        Ok(file)
    }

    /// Counts another handle of a file that somebody has open, or that idles and is what it was.
    fn open_already(&self, ino: u64, policy: &FilePolicy) -> Result<Option<Arc<File>>> {
        let mut table = self.lock();
        let Some(slot) = table.open.get(&ino) else { return Ok(None) };
        slot.file.check(Origin::Caller)?;
        if let Some(left) = slot.idle_state() {
            let same = FoundState::of(&slot.file).as_ref() == Some(left);
            let accepted = slot.file.goes_on_under(policy);
            if same && accepted {
                // As after any open: it is compared with what the kernel knows.
                slot.file.set_size_unknown();
            } else if let Some(found) = table.close_unless_held(ino)
                && !accepted
            {
                return Err(VolumeError::ForeignKey { found });
            }
        }
        Ok(table.take(ino))
    }

    /// Takes over a backing file that was just created.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn adopt(&self, ino: u64, fd: OwnedFd, policy: &FilePolicy) -> Result<Arc<File>> {
        accesses::ignore(&fd);
        let mut fd = Some(fd);
        let reopen = |_| fd.take().ok_or(Errno::BADF);
        self.open_for(ino, (policy, Damaged::Refused, Stay::Idles), reopen)
    }

    /// Gives one handle back. After the last one the file closes and drops its keys, now or once it has
    /// idled long enough.
    pub fn release(&self, ino: u64) {
        self.release_found(ino, None);
    }

    /// The same by somebody who has just looked at the backing file.
    pub(in crate::volume) fn release_found(&self, ino: u64, found: Option<&Stat>) {
        {
            let _turn = self.turn(ino);
            match self.to_idle(ino, found) {
                Some(state) => self.lock().let_idle(ino, state, Instant::now()),
                None => self.lock().give_back(ino),
            }
        }
        // Others' turns are not waited for while one is held.
        loop {
            let surplus = self.lock().surplus();
            let Some(surplus) = surplus else { return };
            self.close_idle(surplus);
        }
    }

    /// How the file is left, if the next to give a handle back is the last and it may idle then.
    fn to_idle(&self, ino: u64, found: Option<&Stat>) -> Option<FoundState> {
        let file = self.lock().last_to_idle(ino)?;
        // A kill finds on the disk what a close would have left there.
        if !file.content().rest() {
            return None;
        }
        found.map_or_else(|| FoundState::of(&file), FoundState::new)
    }

    /// Closes what has idled long enough, and what somebody still looked at when its last handle was
    /// given back.
    pub(in crate::volume) fn sweep(&self) {
        let due = self.lock().due(Instant::now());
        due.into_iter().for_each(|ino| self.close_idle(ino));
    }

    /// Closes every file that nobody has open.
    pub(in crate::volume) fn close_all_idle(&self) {
        let idle = self.lock().all_idle();
        idle.into_iter().for_each(|ino| self.close_idle(ino));
    }

    fn close_idle(&self, ino: u64) {
        let _turn = self.turn(ino);
        // Unless somebody has opened it in the meantime.
        self.lock().close(ino);
    }

    /// The open file of an inode, without counting a handle. It may idle.
    pub fn find(&self, ino: u64) -> Option<Arc<File>> {
        self.lock().open.get(&ino).map(|slot| slot.file.clone())
    }

    /// The same if it does not idle: the requests of the kernel alone change it.
    pub(in crate::volume) fn find_in_use(&self, ino: u64) -> Option<Arc<File>> {
        let table = self.lock();
        table
            .open
            .get(&ino)
            .filter(|slot| slot.idle_state().is_none())
            .map(|slot| slot.file.clone())
    }

    /// The size of a file that somebody has open, or whose backing length could not be set.
    pub(in crate::volume) fn known_size(&self, ino: u64) -> Option<u64> {
        match self.find_in_use(ino) {
            Some(file) => Some(file.size()),
            None => self.lock().parked.get(&ino).and_then(|marks| marks.owed_size()),
        }
    }

    /// The last name of the inode is gone: nothing of it needs a sync any more, and a new file may
    /// get its number.
    pub fn removed(&self, ino: u64) {
        // Dropped without the lock: it may hold the last descriptor of a large file.
        let idle = self.lock().remove_nameless(ino);
        drop(idle);
        self.times.remove(ino);
    }

    /// Cuts a file whose header is damaged to nothing (R5): what `O_TRUNC` may always do.
    ///
    /// # Errors
    /// Those of the backing filesystem; `ReadOnly`.
    pub fn erase(
        &self,
        ino: u64,
        reopen: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<()> {
        if self.access == Access::ReadOnly {
            return Err(VolumeError::ReadOnly);
        }
        let _turn = self.turn(ino);
        self.lock().close(ino);
        if self.lock().open.contains_key(&ino) {
            return Err(VolumeError::Io(Errno::BUSY));
        }
        let (fd, unwritable) = self.open_backing(reopen)?;
        unwritable.map_or(Ok(()), Err)?;
        rustix::fs::ftruncate(&fd, 0)?;
        self.times.remove(ino);
        self.lock().unpark(ino);
        Ok(())
    }

    /// Lets a file that is open be changed again, once its backing file can be.
    ///
    /// # Errors
    /// Those of `reopen`.
    pub(in crate::volume) fn thaw(
        &self,
        ino: u64,
        reopen: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<()> {
        let _turn = self.turn(ino);
        let Some(file) = self.find(ino).filter(|file| file.content().is_frozen()) else {
            return Ok(());
        };
        let (fd, unwritable) = self.open_backing(reopen)?;
        unwritable.map_or(Ok(()), Err)?;
        file.thaw(fd)
    }

    /// Files of which the kernel may know another size than they have.
    pub(in crate::volume) fn take_resized(&self) -> Vec<u64> {
        std::mem::take(&mut *self.resized.lock())
    }

    /// Notes that the contents have changed in a request that failed.
    pub(in crate::volume) fn note_outdated(&self, ino: u64) {
        self.outdated.lock().insert(ino);
    }

    /// Files of which the kernel may have pages that are not right any more.
    pub(in crate::volume) fn take_outdated(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.outdated.lock())
    }

    /// Every open file.
    pub(in crate::volume) fn all(&self) -> Vec<Arc<File>> {
        self.lock().open.values().map(|slot| slot.file.clone()).collect()
    }

    /// Inodes under one of `keys` that the kernel may have cached pages of.
    pub(in crate::volume) fn cached_under(&self, keys: &[KeyId]) -> Vec<u64> {
        let table = self.lock();
        // Of an idle file the kernel may have forgotten everything.
        let is_known = |ino: &u64, slot: &Slot| {
            slot.idle_state().is_none() || table.inodes.may_have_pages(*ino)
        };
        let open = table.open.iter().filter(|(ino, slot)| is_known(ino, slot));
        let open = open.filter(|(_, slot)| slot.file.key().is_some_and(|key| keys.contains(&key)));
        let closed = table.inodes.pages_under(keys).into_iter();
        let closed = closed.filter(|ino| !table.open.contains_key(ino));
        open.map(|(ino, _)| *ino).chain(closed).collect()
    }

    /// Inodes that are written but not synced, with the generation that a sync covers.
    pub(in crate::volume) fn parked(&self) -> Vec<(u64, u64, Option<Instant>)> {
        let table = self.lock();
        let parked = table.parked.iter().filter(|(_, marks)| marks.waiting_since().is_some());
        parked.map(|(ino, marks)| (*ino, marks.generation(), marks.waiting_since())).collect()
    }

    /// The same before a sync of the whole filesystem: the inodes, and the generations that it covers.
    pub(in crate::volume) fn parked_before_sync(&self) -> Vec<(u64, u64)> {
        let mut table = self.lock();
        let parked = table.parked.iter_mut().filter(|(_, marks)| marks.waiting_since().is_some());
        parked.map(|(ino, marks)| (*ino, marks.begin_parked_sync())).collect()
    }

    /// True if a change of some file failed, and its blocks were not looked at since.
    pub(in crate::volume) fn is_any_unsure(&self) -> bool {
        let table = self.lock();
        table.parked.values().any(|marks| marks.is_unsure())
            || table.open.values().any(|slot| slot.file.content().is_unsure())
    }

    /// True if more files wait for a sync than are to be remembered. Those that the last sync of all has
    /// left do not count: another one helps them as little.
    pub(in crate::volume) fn is_crowded(&self) -> bool {
        self.lock().is_crowded(MOST_PARKED)
    }

    /// A sync of all files that wait for one has ended, as it may.
    pub(in crate::volume) fn all_were_synced(&self) {
        let mut table = self.lock();
        table.stuck = table.parked.len();
    }

    /// How often a file was closed, or began to idle.
    pub(in crate::volume) fn closes(&self) -> u64 {
        self.lock().closes
    }

    /// A sync of the whole backing filesystem succeeded after [`Self::parked_before_sync`].
    ///
    /// A failure before may have been of this inode: it then has to be synced by itself.
    pub(in crate::volume) fn parked_is_synced(&self, ino: u64, generation: u64) -> Parked {
        let mut table = self.lock();
        let Some(marks) = table.parked.get_mut(&ino) else { return Parked::Dirty };
        if marks.were_passed_over(self.shared.failed_syncs()) {
            return Parked::Doubtful;
        }
        marks.flip(generation, false);
        let clean = !marks.is_dirty();
        if clean {
            marks.prove_parked();
        }
        if marks.is_forgettable() {
            table.unpark(ino);
        }
        if clean { Parked::Clean } else { Parked::Dirty }
    }

    /// A sync of the whole backing filesystem failed: nobody knows what is on the disk of a closed
    /// file that was not synced.
    pub(in crate::volume) fn parked_sync_failed(&self, ino: u64) {
        if let Some(marks) = self.lock().parked.get_mut(&ino) {
            marks.sync_failed();
            self.shared.doubt();
        }
    }

    /// The backing file, and why it cannot be written if it cannot: somebody else's, immutable, or
    /// being run as a program.
    fn open_backing(
        &self,
        mut reopen: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<(OwnedFd, Option<Errno>)> {
        let base = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if self.access == Access::ReadOnly {
            return Ok((open_noatime(base | OFlags::RDONLY, reopen)?, None));
        }
        match open_noatime(base | OFlags::RDWR, &mut reopen) {
            Err(why @ (Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY)) => {
                Ok((open_noatime(base | OFlags::RDONLY, reopen)?, Some(why)))
            }
            other => Ok((other?, None)),
        }
    }

    fn open_content(
        &self,
        ino: u64,
        (fd, unwritable): (OwnedFd, Option<Errno>),
        policy: &FilePolicy,
        damaged: Damaged,
    ) -> Result<Arc<File>> {
        // Nothing may count on a write that the backing file would refuse: no repair, no seal. What is
        // immutable may be changed later, while it is open.
        let (access, unwritable) = match unwritable {
            Some(Errno::PERM) => ((self.access, Mutability::Frozen), None),
            Some(why) => ((Access::ReadOnly, Mutability::Mutable), Some(why)),
            None => ((self.access, Mutability::Mutable), None),
        };
        let backing = Arc::new(TimedFile::new(BackingFile::new(fd), ino, self.times.clone()));
        let source = Arc::new(FileKeySource::new(self.keyring.clone(), policy.clone()));
        let told = plain_size(backing.length()?).0;
        let marks = self.lock().parked.remove(&ino).map(|marks| *marks);
        let shared = self.shared.clone();
        // Kept until the open is known to be good: its failure must not lose them.
        let kept = marks.clone();
        let opened =
            Content::open(backing.clone(), source.clone(), shared, access, (marks, damaged));
        if let (Err(_), Some(kept)) = (&opened, kept) {
            self.lock().parked.insert(ino, Box::new(kept));
        }
        let content = opened?;
        if content.size() != told {
            self.resized.lock().push(ino);
        }
        Ok(Arc::new(File::new(ino, content, (backing, unwritable), source)))
    }

    fn turn(&self, ino: u64) -> MutexGuard<'_, ()> {
        self.turns.of(ino).lock()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}
