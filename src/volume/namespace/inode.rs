//! Which inodes the kernel knows, and where they are in the vault.
//!
//! The number that the kernel sees is the backing inode number; only the root, which FUSE calls
//! 1, trades places with a backing inode 1 if there is one. So numbers are stable across mounts,
//! and nothing has to be handed out or stored.
//!
//! **Memory.** No file descriptor is kept per inode: an inode is reached through the directory
//! and the encoded name under which the kernel found it, and the few directories in use are held
//! open by [`super::dir_cache`]. A known inode costs a [`Node`] of 40 bytes, 5 to 10 in a hash table of
//! numbers, and the bytes of its encoded name (39 for a name of 13): a million known inodes take
//! some 90 MB and no descriptors. What the kernel forgets is given back.
//!
//! **Pins.** Before the last known link of an inode goes away the inode is pinned: a descriptor
//! opened with `O_PATH` keeps it reachable, and keeps its number from being used again, until
//! the kernel has forgotten it.
//!
//! Locks: each shard has its own mutex, held for a map access and never across a system call. Each change
//! of a map is complete before anything can panic.

mod exported;
mod links;
mod nodes;
mod pages;
mod texts;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::id::KeyId;
use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::identity::InodeIdentity;
use crate::volume::model::by_inode::ByInode;
use exported::Exported;
use links::Links;
use nodes::{Nodes, Removed};
use pages::KeyNumbers;

pub(in crate::volume) use links::Link;

/// The number by which FUSE names the root of the volume.
pub const ROOT: u64 = 1;

const SHARDS: usize = 64;
/// Places for counts of sizes: few inodes change at once.
const RESIZED: usize = 4096;
/// How to reach an inode.
#[derive(Debug, Clone)]
pub(in crate::volume) enum Whereabouts {
    /// Through a descriptor that was opened before its last known link went away.
    Pinned(Arc<OwnedFd>),
    /// Through a directory entry.
    Entry(Link),
}

/// The inodes that the kernel knows.
#[derive(Debug)]
pub(in crate::volume) struct InodeTable {
    shards: ByInode<Mutex<Nodes>>,
    /// The keys of pages that the kernel may have.
    keys: Mutex<KeyNumbers>,
    /// How many inodes it has come to know, and has forgotten.
    turnover: AtomicU64,
    /// How often the kernel's own requests have made a size, in all.
    all_resized: AtomicU64,
    /// The same, for all inodes that share an entry here: a slot has no room for it.
    resized: ByInode<AtomicU32>,
    /// Backing number of the root, and so the shown number of backing inode 1.
    root: u64,
    /// What the kernel may ask for by number after it has forgotten it; lock order: after a shard.
    exported: Option<Mutex<Exported>>,
}

/// A moment in the life of an inode, by the sizes that it has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Resized(u32);

impl InodeTable {
    /// A table for the volume whose root directory has this backing inode number.
    pub(in crate::volume) fn new(root: u64) -> Self {
        Self {
            shards: ByInode::new(SHARDS),
            keys: Mutex::default(),
            turnover: AtomicU64::new(0),
            all_resized: AtomicU64::new(0),
            resized: ByInode::new(RESIZED),
            root,
            exported: None,
        }
    }

    /// The same for a volume whose inodes are also reached by number, by file handles.
    #[must_use]
    pub(in crate::volume) fn exporting(self, exports: bool) -> Self {
        Self { exported: exports.then(Mutex::default), ..self }
    }

    /// Notes that an inode is a directory: where handles lead to numbers, it stays known.
    pub(in crate::volume) fn keep_dir(&self, ino: u64) {
        if let Some(exported) = &self.exported {
            exported.lock().keep_dir(ino);
        }
    }

    /// Where a file was when the kernel forgot it.
    pub(in crate::volume) fn last_parent(&self, ino: u64) -> Option<u64> {
        self.exported.as_ref()?.lock().parent(ino)
    }

    /// The number under which the kernel knows a backing inode. It is its own inverse.
    pub(in crate::volume) fn shown(&self, backing: u64) -> u64 {
        if backing == self.root {
            ROOT
        } else if backing == ROOT {
            self.root
        } else {
            backing
        }
    }

    /// Notes that the kernel is told of `ino` under this link, which is one lookup more. Returns the identity
    /// that it knew under this number before. Nothing is kept of another inode that had it.
    pub(in crate::volume) fn enter(
        &self,
        ino: u64,
        parent: u64,
        name: &BackingName,
        identity: InodeIdentity,
    ) -> Option<InodeIdentity> {
        if ino == ROOT {
            return None;
        }
        let mut shard = self.shard(ino);
        let known = shard.get(ino).copied();
        match known {
            Some(known) if !known.identity.is_born_with(identity) => shard.reset(ino),
            Some(_) => {}
            None => drop(self.turnover.fetch_add(1, Ordering::Relaxed)),
        }
        let node = shard.get_or_make(ino);
        node.lookups = node.lookups.saturating_add(1);
        node.identity = identity;
        shard.add_link(ino, parent, name);
        known.filter(|known| known.lookups > 0).map(|known| known.identity)
    }

    /// The kernel is not told after all, and still knows the identity from before.
    pub(in crate::volume) fn restore_identity(&self, ino: u64, before: Option<InodeIdentity>) {
        if let (Some(node), Some(before)) = (self.shard(ino).get_mut(ino), before) {
            node.identity = before;
        }
    }

    /// The identity by which the kernel knows `ino`, if it does.
    pub(in crate::volume) fn known_identity(&self, ino: u64) -> Option<InodeIdentity> {
        self.shard(ino).get(ino).map(|node| node.identity)
    }

    /// The kernel is told that `ino` has this owner.
    pub(in crate::volume) fn note_owner(&self, ino: u64, identity: InodeIdentity) {
        if let Some(node) = self.shard(ino).get_mut(ino) {
            node.identity.owner = identity.owner;
        }
    }

    /// Takes back `count` lookups; true if none is left: the inode is dropped, unless it can be asked for
    /// by number. `left` is told the directories that it is in.
    pub(in crate::volume) fn forget(&self, ino: u64, count: u64, left: impl FnMut(u64)) -> bool {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get_mut(ino) else { return false };
        if node.lookups < u32::MAX {
            node.lookups = node.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        }
        if node.lookups > 0 {
            return false;
        }
        if self.outlives(ino, &shard) {
            let parents: Vec<_> = shard.links(ino).map(|(parent, _)| parent).collect();
            drop(shard);
            parents.into_iter().for_each(left);
            return true;
        }
        let removed = shard.remove(ino);
        drop(shard);
        self.turnover.fetch_add(1, Ordering::Relaxed);
        let Some(Removed { parents, pin }) = removed else { return false };
        parents.into_iter().for_each(left);
        // It may delete the file's contents: not under the lock.
        drop(pin);
        true
    }

    /// True for what stays known though the kernel has forgotten it.
    fn outlives(&self, ino: u64, shard: &Nodes) -> bool {
        let Some(exported) = &self.exported else { return false };
        let mut exported = exported.lock();
        match shard.links(ino).next_back().filter(|_| shard.pinned(ino).is_none()) {
            Some(_) if exported.keeps(ino) => return true,
            Some((parent, _)) => exported.note_file(ino, parent),
            None => {}
        }
        exported.drop_dir(ino);
        false
    }

    /// True while the kernel knows `ino`.
    pub(in crate::volume) fn knows(&self, ino: u64) -> bool {
        self.shard(ino).get(ino).is_some()
    }

    /// How to reach `ino`; `None` if no way is known.
    pub(in crate::volume) fn whereabouts(&self, ino: u64) -> Option<Whereabouts> {
        let shard = self.shard(ino);
        if let Some(fd) = shard.pinned(ino) {
            return Some(Whereabouts::Pinned(Arc::clone(fd)));
        }
        // The link found last: the likeliest to be still held by the kernel.
        let (parent, name) = shard.links(ino).next_back()?;
        BackingName::new(name).map(|name| Whereabouts::Entry(Link { parent, name }))
    }

    /// True while `link` is known to lead to `ino`.
    pub(in crate::volume) fn has_link(&self, ino: u64, link: &Link) -> bool {
        let link = (link.parent, link.name.bytes());
        self.shard(ino).links(ino).any(|other| other == link)
    }

    /// Drops all links of a known inode but this one: a directory has no other.
    pub(in crate::volume) fn only_link(&self, ino: u64, link: &Link) {
        let mut shard = self.shard(ino);
        if shard.links(ino).any(|other| other != (link.parent, link.name.bytes())) {
            shard.change_links(ino, |links| *links = Links::One(link.clone()));
        }
    }

    /// Drops a link that turned out to lead elsewhere.
    pub(in crate::volume) fn drop_link(&self, ino: u64, parent: u64, name: &BackingName) {
        let mut shard = self.shard(ino);
        shard.change_links(ino, |links| links.remove(parent, name));
        let unknown = shard.get(ino).is_some_and(|node| node.lookups == 0);
        // The kernel does not know it, and would not forget it.
        if unknown && shard.links(ino).next().is_none() {
            shard.remove(ino);
            self.exported.as_ref().map(|exported| exported.lock().drop_dir(ino));
        }
    }

    /// The directories that `ino` is in, or was in last.
    pub(in crate::volume) fn parents(&self, ino: u64) -> Vec<u64> {
        let shard = self.shard(ino);
        shard.links(ino).map(|(parent, _)| parent).chain(shard.left(ino)).collect()
    }

    /// True if the kernel knows `ino` and this is the only way to it: pin it before removing it.
    pub(in crate::volume) fn needs_pin(&self, ino: u64, parent: u64, name: &BackingName) -> bool {
        let shard = self.shard(ino);
        shard.get(ino).is_some_and(|node| node.lookups > 0)
            && shard.pinned(ino).is_none()
            && !shard.links(ino).any(|link| link != (parent, name.bytes()))
    }

    /// Keeps `ino` reachable through `fd` until the kernel forgets it.
    pub(in crate::volume) fn pin(&self, ino: u64, fd: OwnedFd) {
        self.shard(ino).pin(ino, fd);
    }

    /// Gives up a pin that was made for a removal that then failed.
    pub(in crate::volume) fn unpin(&self, ino: u64) {
        let pinned = self.shard(ino).unpin(ino);
        drop(pinned);
    }

    /// Notes that an inode that the kernel knows has one name in place of another. It never counts as
    /// being in both directories.
    pub(in crate::volume) fn move_link(
        &self,
        ino: u64,
        (parent, name): (u64, &BackingName),
        (new_parent, new_name): (u64, &BackingName),
    ) {
        self.shard(ino).change_links(ino, |links| {
            links.remove(parent, name);
            links.add(new_parent, new_name);
        });
    }

    /// Remembers the fingerprint of the contents that the kernel has in its cache.
    pub(in crate::volume) fn note_cached(&self, ino: u64, fingerprint: u16) {
        if let Some(node) = self.shard(ino).get_mut(ino) {
            node.cached = fingerprint;
        }
    }

    /// True if the kernel's cache holds the contents with this fingerprint.
    pub(in crate::volume) fn has_cached(&self, ino: u64, fingerprint: u16) -> bool {
        self.shard(ino).get(ino).is_some_and(|node| node.cached == fingerprint && fingerprint != 0)
    }

    /// Remembers the fingerprint of the size that the kernel's own requests have made.
    pub(in crate::volume) fn note_size(&self, ino: u64, fingerprint: u16) {
        if let Some(node) = self.shard(ino).get_mut(ino) {
            node.size = fingerprint;
            self.resized.of(ino).fetch_add(1, Ordering::AcqRel);
            self.all_resized.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Remembers the fingerprint of a size that the kernel is told, unless its own requests have made
    /// another since: `since` is from before anybody looked at the file.
    pub(in crate::volume) fn tell_size(&self, ino: u64, fingerprint: u16, since: Resized) {
        if let Some(node) = self.shard(ino).get_mut(ino)
            && self.resized(ino) == since
        {
            node.size = fingerprint;
        }
    }

    /// How often the kernel's requests have changed the size of `ino`, or of one that shares its entry.
    pub(in crate::volume) fn resized(&self, ino: u64) -> Resized {
        Resized(self.resized.of(ino).load(Ordering::Acquire))
    }

    /// The same of all inodes together.
    pub(in crate::volume) fn all_resized(&self) -> u64 {
        self.all_resized.load(Ordering::Acquire)
    }

    /// The fingerprint of the size that the kernel knows, if it knows one.
    pub(in crate::volume) fn size(&self, ino: u64) -> Option<u16> {
        self.shard(ino).get(ino).map(|node| node.size).filter(|size| *size != 0)
    }

    /// The kernel is about to close a handle of a file under this key, and may keep pages. Before a file
    /// is closed, so that it counts as open or as this at any time.
    pub(in crate::volume) fn note_pages(&self, ino: u64, key: Option<KeyId>) {
        let under = self.keys.lock().number(key);
        if let Some(node) = self.shard(ino).get_mut(ino) {
            node.pages = under;
        }
    }

    /// The key of a file that is being closed may be another one since.
    pub(in crate::volume) fn correct_pages(&self, ino: u64, key: Option<KeyId>) {
        if self.may_have_pages(ino) {
            self.note_pages(ino, key);
        }
    }

    /// True if the kernel may have pages of the file though nobody has it open.
    pub(in crate::volume) fn may_have_pages(&self, ino: u64) -> bool {
        self.shard(ino).get(ino).is_some_and(|node| node.pages.is_any())
    }

    /// The inodes of which it may have pages under one of `keys`.
    pub(in crate::volume) fn pages_under(&self, keys: &[KeyId]) -> Vec<u64> {
        let numbers = self.keys.lock().numbers_of(keys);
        let mut found = Vec::new();
        for shard in self.shards.iter() {
            found.extend(shard.lock().like(|node| numbers.contains(&node.pages)));
        }
        found
    }

    /// How often the kernel came to know an inode, and forgot one.
    pub(in crate::volume) fn turnover(&self) -> u64 {
        self.turnover.load(Ordering::Relaxed)
    }

    /// How many inodes the kernel knows, besides the root.
    pub(in crate::volume) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, ino: u64) -> MutexGuard<'_, Nodes> {
        self.shards.of(ino).lock()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::links::MAX_LINKS;
    use super::nodes::Node;
    use super::*;

    fn name(text: &str) -> BackingName {
        BackingName::new(text.as_bytes()).unwrap()
    }

    fn entry(table: &InodeTable, ino: u64) -> Option<Link> {
        match table.whereabouts(ino)? {
            Whereabouts::Entry(link) => Some(link),
            Whereabouts::Pinned(_) => None,
        }
    }

    #[test]
    fn an_inode_is_known_until_each_lookup_is_forgotten() {
        let table = InodeTable::new(100);
        table.enter(7, 100, &name("a"), InodeIdentity::default());
        table.enter(7, 100, &name("a"), InodeIdentity::default());
        table.forget(7, 1, drop);
        assert_eq!(table.count(), 1);
        table.forget(7, 1, drop);
        assert_eq!(table.count(), 0);
        table.forget(7, 1, drop);
    }

    #[test]
    fn the_root_and_a_backing_inode_one_trade_numbers() {
        let table = InodeTable::new(100);
        assert_eq!(table.shown(100), ROOT);
        assert_eq!(table.shown(1), 100);
        assert_eq!(table.shown(table.shown(55)), 55);
    }

    #[test]
    fn the_last_known_link_needs_a_pin() {
        let table = InodeTable::new(100);
        table.enter(7, 1, &name("a"), InodeIdentity::default());
        assert!(table.needs_pin(7, 1, &name("a")));
        table.enter(7, 2, &name("b"), InodeIdentity::default());
        assert!(!table.needs_pin(7, 1, &name("a")));
        table.drop_link(7, 1, &name("a"));
        assert_eq!(entry(&table, 7), Some(Link { parent: 2, name: name("b") }));
        assert!(table.needs_pin(7, 2, &name("b")));
        assert!(!table.needs_pin(8, 2, &name("b")), "not known to the kernel");
    }

    #[test]
    fn a_pinned_inode_is_reached_through_its_descriptor() {
        let table = InodeTable::new(100);
        table.enter(7, 1, &name("a"), InodeIdentity::default());
        table.pin(7, std::fs::File::open("/dev/null").unwrap().into());
        table.drop_link(7, 1, &name("a"));
        assert!(matches!(table.whereabouts(7), Some(Whereabouts::Pinned(_))));
        table.unpin(7);
        assert!(table.whereabouts(7).is_none());
    }

    #[test]
    fn the_number_of_links_kept_is_bounded() {
        let table = InodeTable::new(100);
        for i in 0..1000_u32 {
            table.enter(7, 1, &name(&i.to_string()), InodeIdentity::default());
        }
        assert_eq!(table.shard(7).links(7).count(), MAX_LINKS);
        assert_eq!(entry(&table, 7).unwrap().name, name("999"));
    }

    #[test]
    fn no_number_of_links_hides_a_directory() {
        let table = InodeTable::new(100);
        table.enter(7, 1, &name("strict"), InodeIdentity::default());
        for i in 0..100_u32 {
            table.enter(7, 2, &name(&i.to_string()), InodeIdentity::default());
        }
        assert!(table.parents(7).contains(&1));
        assert_eq!(table.parents(7).len(), MAX_LINKS);
        for i in 3..100 {
            table.enter(7, i, &name("lax"), InodeIdentity::default());
        }
        assert!(table.parents(7).contains(&1));
        table.move_link(7, (1, &name("strict")), (2, &name("moved")));
        assert!(!table.parents(7).contains(&1));
    }

    #[test]
    fn of_another_inode_with_the_number_nothing_is_kept() {
        let table = InodeTable::new(100);
        let (old, new) =
            (InodeIdentity { birth: 1, owner: 1 }, InodeIdentity { birth: 2, owner: 1 });
        assert_eq!(table.enter(7, 1, &name("a"), old), None);
        table.note_cached(7, 5);
        table.note_size(7, 6);
        assert_eq!(table.enter(7, 1, &name("b"), InodeIdentity { owner: 2, ..old }), Some(old));
        assert_eq!(table.known_identity(7), Some(InodeIdentity { owner: 2, ..old }));
        let before = table.enter(7, 1, &name("c"), new);
        assert_eq!(table.parents(7).len(), 1);
        assert!(!table.has_cached(7, 5) && table.size(7).is_none());
        table.restore_identity(7, before);
        assert_eq!(table.known_identity(7), Some(InodeIdentity { owner: 2, ..old }));
        assert!(!table.forget(7, 2, drop), "three lookups were counted");
        assert!(table.forget(7, 1, drop));
    }

    #[test]
    fn a_size_that_was_looked_up_before_the_kernel_made_another_is_not_kept() {
        let table = InodeTable::new(100);
        table.enter(7, 1, &name("a"), InodeIdentity::default());
        let before = table.resized(7);
        table.tell_size(7, 5, before);
        assert_eq!(table.size(7), Some(5));
        table.note_size(7, 6);
        table.tell_size(7, 5, before);
        assert_eq!(table.size(7), Some(6));
        table.tell_size(7, 8, table.resized(7));
        assert_eq!(table.size(7), Some(8));
    }

    #[test]
    fn a_known_inode_takes_about_ninety_bytes_and_gives_them_back() {
        assert!(size_of::<Node>() <= 40, "{}", size_of::<Node>());
        const MANY: u64 = 100_000;
        let table = InodeTable::new(100);
        let name_of = |ino: u64| name(&format!("{ino:039}"));
        for ino in 1000..1000 + MANY {
            table.enter(ino, 100, &name_of(ino), InodeIdentity::default());
        }
        let room = |table: &InodeTable| -> usize {
            table.shards.iter().map(|shard| shard.lock().room()).sum()
        };
        let each = room(&table) as u64 / MANY;
        assert!(each <= 100, "{each}");
        for ino in (1000..1000 + MANY).filter(|ino| ino % 16 != 0) {
            assert!(table.forget(ino, 1, drop));
        }
        for ino in (1000..1000 + MANY).filter(|ino| ino % 16 == 0) {
            assert_eq!(entry(&table, ino), Some(Link { parent: 100, name: name_of(ino) }));
        }
        assert!(24 * MANY > room(&table) as u64, "{}", room(&table));
        for ino in (1000..1000 + MANY).filter(|ino| ino % 16 == 0) {
            assert!(table.forget(ino, 1, drop));
        }
        assert!(table.count() == 0 && room(&table) <= SHARDS * 16 * 1024, "{}", room(&table));
        assert_eq!(table.turnover(), 2 * MANY);
    }

    /// Against maps of the plainest kind, with names that come, move and go.
    #[test]
    fn whatever_happens_each_inode_is_found_by_the_names_that_it_has() {
        let table = InodeTable::new(1 << 40);
        let mut known: BTreeMap<u64, BTreeSet<(u64, String)>> = BTreeMap::new();
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for step in 0..40_000 {
            let ino = 2 + next(3000);
            let (parent, text) = (2 + next(3), "n".repeat(usize::try_from(1 + next(200)).unwrap()));
            let links = known.get(&ino).map_or(0, BTreeSet::len);
            match next(4) {
                0 | 1 if links < 4 => {
                    table.enter(ino, parent, &name(&text), InodeIdentity::default());
                    known.entry(ino).or_default().insert((parent, text));
                }
                2 if links > 1 => {
                    let (parent, text) = known[&ino].first().unwrap().clone();
                    table.drop_link(ino, parent, &name(&text));
                    known.get_mut(&ino).unwrap().remove(&(parent, text));
                }
                _ => {
                    assert_eq!(
                        table.forget(ino, u64::from(u32::MAX), drop),
                        known.remove(&ino).is_some()
                    );
                }
            }
            if step % 5000 == 0 {
                for (ino, links) in &known {
                    let has = |(parent, text): &(u64, String)| {
                        table.has_link(*ino, &Link { parent: *parent, name: name(text) })
                    };
                    assert!(links.iter().all(has));
                    assert_eq!(table.parents(*ino).len(), links.len());
                }
            }
        }
        assert_eq!(table.count(), known.len());
    }

    #[test]
    fn pages_are_found_by_their_key_until_the_kernel_forgets_the_inode() {
        let table = InodeTable::new(100);
        let key = |number| KeyId::from_bytes([number; 16]);
        for ino in 7..=9 {
            table.enter(ino, 1, &name("a"), InodeIdentity::default());
        }
        table.note_pages(7, Some(key(1)));
        table.note_pages(8, None);
        table.note_pages(10, Some(key(1)));
        assert!(table.may_have_pages(7) && table.may_have_pages(8));
        assert!(!table.may_have_pages(9) && !table.may_have_pages(10));
        assert_eq!(table.pages_under(&[key(2), key(1)]), [7]);
        table.correct_pages(7, Some(key(2)));
        table.correct_pages(9, Some(key(2)));
        assert!(table.pages_under(&[key(1)]).is_empty());
        assert_eq!(table.pages_under(&[key(2)]), [7]);
        table.enter(7, 1, &name("b"), InodeIdentity { birth: 5, owner: 1 });
        table.enter(7, 1, &name("b"), InodeIdentity { birth: 6, owner: 1 });
        assert_eq!(
            table.pages_under(&[key(2)]),
            [7],
            "the kernel may still have those of the other"
        );
        table.forget(7, 3, drop);
        assert!(table.pages_under(&[key(2)]).is_empty());
    }
}
