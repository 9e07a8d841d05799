//! Which inodes the kernel knows, and where they are in the vault.
//!
//! The number that the kernel sees is the backing inode number; only the root, which FUSE calls
//! 1, trades places with a backing inode 1 if there is one. So numbers are stable across mounts,
//! and nothing has to be handed out or stored.
//!
//! **Memory.** No file descriptor is kept per inode: an inode is reached through the directory
//! and the encoded name under which the kernel found it, and the few directories in use are held
//! open by [`super::dir_cache`]. A known inode costs a 64-byte slot of a hash map (filled to
//! between 44 and 88 %) plus its encoded name (40 bytes for a name of 13), about 150 bytes: a million
//! known inodes take some 150 MB and no descriptors.
//!
//! **Pins.** Before the last known link of an inode goes away the inode is pinned: a descriptor
//! opened with `O_PATH` keeps it reachable, and keeps its number from being used again, until
//! the kernel has forgotten it.
//!
//! Locks: each shard has its own mutex, held for a map access and never across a system call. Each change
//! of a map is complete before anything can panic.

mod exported;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::identity::InodeIdentity;
use crate::volume::model::by_inode::ByInode;
use crate::volume::model::slack::give_room_back;
use exported::Exported;

/// The number by which FUSE names the root of the volume.
pub const ROOT: u64 = 1;

const SHARDS: usize = 64;
/// Places for counts of sizes: few inodes change at once.
const RESIZED: usize = 4096;
/// How many links are kept of one inode, besides one for each further directory; a file with more is
/// still reached by those.
const MAX_LINKS: usize = 32;

/// One name of an inode: the directory's inode number and the encoded name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) struct Link {
    /// Inode number of the directory.
    pub parent: u64,
    /// Name in the backing directory.
    pub name: BackingName,
}

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
    shards: ByInode<Mutex<HashMap<u64, Node>>>,
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

#[derive(Debug, Default)]
struct Node {
    /// The kernel counts no further than memory has inodes to look up; at the end of this count a
    /// node stays.
    lookups: u32,
    /// Fingerprint of the contents that the kernel may have cached; 0 = none.
    cached: u16,
    /// Fingerprint of the size that the kernel knows; 0 = none.
    size: u16,
    identity: InodeIdentity,
    links: Links,
    pinned: Option<Arc<OwnedFd>>,
}

#[derive(Debug, Default)]
enum Links {
    #[default]
    None,
    /// The last link went from this directory, whose policy still counts.
    Gone(u64),
    One(Link),
    #[expect(clippy::box_collection, reason = "rare, and a vector would widen every slot")]
    Many(Box<Vec<Link>>),
}

impl InodeTable {
    /// A table for the volume whose root directory has this backing inode number.
    pub(in crate::volume) fn new(root: u64) -> Self {
        Self {
            shards: ByInode::new(SHARDS),
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
        let node = shard.entry(ino).or_default();
        let before = (node.lookups > 0).then_some(node.identity);
        if !node.identity.is_born_with(identity) {
            *node = Node { lookups: node.lookups, ..Node::default() };
        }
        node.lookups = node.lookups.saturating_add(1);
        node.identity = identity;
        node.links.add(parent, name);
        before
    }

    /// The kernel is not told after all, and still knows the identity from before.
    pub(in crate::volume) fn restore_identity(&self, ino: u64, before: Option<InodeIdentity>) {
        if let (Some(node), Some(before)) = (self.shard(ino).get_mut(&ino), before) {
            node.identity = before;
        }
    }

    /// The identity by which the kernel knows `ino`, if it does.
    pub(in crate::volume) fn known_identity(&self, ino: u64) -> Option<InodeIdentity> {
        self.shard(ino).get(&ino).map(|node| node.identity)
    }

    /// The kernel is told that `ino` has this owner.
    pub(in crate::volume) fn note_owner(&self, ino: u64, identity: InodeIdentity) {
        if let Some(node) = self.shard(ino).get_mut(&ino) {
            node.identity.owner = identity.owner;
        }
    }

    /// Takes back `count` lookups; true if none is left: the inode is dropped, unless it can be asked for
    /// by number. `left` is told the directories that it is in.
    pub(in crate::volume) fn forget(&self, ino: u64, count: u64, left: impl FnMut(u64)) -> bool {
        let mut shard = self.shard(ino);
        let Entry::Occupied(mut entry) = shard.entry(ino) else { return false };
        let node = entry.get_mut();
        if node.lookups < u32::MAX {
            node.lookups = node.lookups.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        }
        if node.lookups > 0 {
            return false;
        }
        if self.outlives(ino, node) {
            node.links.iter().map(|link| link.parent).for_each(left);
            return true;
        }
        let node = entry.remove();
        give_room_back(&mut shard);
        drop(shard);
        node.links.iter().map(|link| link.parent).for_each(left);
        // Closing the pin may delete the file's contents: not under the lock.
        drop(node);
        true
    }

    /// True for what stays known though the kernel has forgotten it.
    fn outlives(&self, ino: u64, node: &Node) -> bool {
        let Some(exported) = &self.exported else { return false };
        let mut exported = exported.lock();
        match node.links.first().filter(|_| node.pinned.is_none()) {
            Some(_) if exported.keeps(ino) => return true,
            Some(link) => exported.note_file(ino, link.parent),
            None => {}
        }
        exported.drop_dir(ino);
        false
    }

    /// True while the kernel knows `ino`.
    pub(in crate::volume) fn knows(&self, ino: u64) -> bool {
        self.shard(ino).contains_key(&ino)
    }

    /// How to reach `ino`; `None` if no way is known.
    pub(in crate::volume) fn whereabouts(&self, ino: u64) -> Option<Whereabouts> {
        let shard = self.shard(ino);
        let node = shard.get(&ino)?;
        match &node.pinned {
            Some(fd) => Some(Whereabouts::Pinned(Arc::clone(fd))),
            None => node.links.first().cloned().map(Whereabouts::Entry),
        }
    }

    /// True while `link` is known to lead to `ino`.
    pub(in crate::volume) fn has_link(&self, ino: u64, link: &Link) -> bool {
        self.shard(ino).get(&ino).is_some_and(|node| node.links.iter().any(|l| l == link))
    }

    /// Drops all links of a known inode but this one: a directory has no other.
    pub(in crate::volume) fn only_link(&self, ino: u64, link: &Link) {
        if let Some(node) = self.shard(ino).get_mut(&ino)
            && node.links.iter().any(|other| other != link)
        {
            node.links = Links::One(link.clone());
        }
    }

    /// Drops a link that turned out to lead elsewhere.
    pub(in crate::volume) fn drop_link(&self, ino: u64, parent: u64, name: &BackingName) {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get_mut(&ino) else { return };
        node.links.remove(parent, name);
        // The kernel does not know it, and would not forget it.
        if node.lookups == 0 && node.links.first().is_none() {
            shard.remove(&ino);
            self.exported.as_ref().map(|exported| exported.lock().drop_dir(ino));
        }
    }

    /// The directories that `ino` is in, or was in last.
    pub(in crate::volume) fn parents(&self, ino: u64) -> Vec<u64> {
        let shard = self.shard(ino);
        let Some(node) = shard.get(&ino) else { return Vec::new() };
        match &node.links {
            Links::Gone(parent) => vec![*parent],
            links => links.iter().map(|link| link.parent).collect(),
        }
    }

    /// True if the kernel knows `ino` and this is the only way to it: pin it before removing it.
    pub(in crate::volume) fn needs_pin(&self, ino: u64, parent: u64, name: &BackingName) -> bool {
        self.shard(ino).get(&ino).is_some_and(|node| {
            node.lookups > 0
                && node.pinned.is_none()
                && !node.links.iter().any(|l| l.parent != parent || l.name != *name)
        })
    }

    /// Keeps `ino` reachable through `fd` until the kernel forgets it.
    pub(in crate::volume) fn pin(&self, ino: u64, fd: OwnedFd) {
        if let Some(node) = self.shard(ino).get_mut(&ino) {
            node.pinned = Some(Arc::new(fd));
        }
    }

    /// Gives up a pin that was made for a removal that then failed.
    pub(in crate::volume) fn unpin(&self, ino: u64) {
        let pinned = self.shard(ino).get_mut(&ino).and_then(|node| node.pinned.take());
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
        if let Some(node) = self.shard(ino).get_mut(&ino) {
            node.links.remove(parent, name);
            node.links.add(new_parent, new_name);
        }
    }

    /// Remembers the fingerprint of the contents that the kernel has in its cache.
    pub(in crate::volume) fn note_cached(&self, ino: u64, fingerprint: u16) {
        if let Some(node) = self.shard(ino).get_mut(&ino) {
            node.cached = fingerprint;
        }
    }

    /// True if the kernel's cache holds the contents with this fingerprint.
    pub(in crate::volume) fn has_cached(&self, ino: u64, fingerprint: u16) -> bool {
        self.shard(ino).get(&ino).is_some_and(|node| node.cached == fingerprint && fingerprint != 0)
    }

    /// Remembers the fingerprint of the size that the kernel's own requests have made.
    pub(in crate::volume) fn note_size(&self, ino: u64, fingerprint: u16) {
        if let Some(node) = self.shard(ino).get_mut(&ino) {
            node.size = fingerprint;
            self.resized.of(ino).fetch_add(1, Ordering::AcqRel);
            self.all_resized.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Remembers the fingerprint of a size that the kernel is told, unless its own requests have made
    /// another since: `since` is from before anybody looked at the file.
    pub(in crate::volume) fn tell_size(&self, ino: u64, fingerprint: u16, since: Resized) {
        if let Some(node) = self.shard(ino).get_mut(&ino)
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
        self.shard(ino).get(&ino).map(|node| node.size).filter(|size| *size != 0)
    }

    /// How many inodes the kernel knows, besides the root.
    pub(in crate::volume) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, ino: u64) -> MutexGuard<'_, HashMap<u64, Node>> {
        self.shards.of(ino).lock()
    }
}

impl Links {
    fn iter(&self) -> std::slice::Iter<'_, Link> {
        match self {
            Self::None | Self::Gone(_) => [].iter(),
            Self::One(link) => std::slice::from_ref(link).iter(),
            Self::Many(links) => links.iter(),
        }
    }

    /// The link found last: the likeliest to be still held by the kernel.
    fn first(&self) -> Option<&Link> {
        self.iter().next_back()
    }

    fn add(&mut self, parent: u64, name: &BackingName) {
        if self.iter().any(|l| l.parent == parent && l.name == *name) {
            return;
        }
        let link = Link { parent, name: name.clone() };
        *self = match std::mem::take(self) {
            Self::None | Self::Gone(_) => Self::One(link),
            Self::One(first) => Self::Many(Box::new(vec![first, link])),
            Self::Many(mut links) => {
                if links.len() >= MAX_LINKS {
                    spare(&links, parent).map(|at| links.remove(at));
                }
                links.push(link);
                Self::Many(links)
            }
        };
    }

    fn remove(&mut self, parent: u64, name: &BackingName) {
        *self = match std::mem::take(self) {
            Self::One(link) if link.parent == parent && link.name == *name => Self::Gone(parent),
            Self::Many(mut links) => {
                links.retain(|l| l.parent != parent || l.name != *name);
                if links.len() > 1 {
                    Self::Many(links)
                } else {
                    links.pop().map_or(Self::None, Self::One)
                }
            }
            other => other,
        };
    }
}

/// The oldest of the links that may go: not the last of a directory, whose policy counts.
fn spare(links: &[Link], parent: u64) -> Option<usize> {
    let count = |of: u64| links.iter().filter(|link| link.parent == of).count();
    links.iter().position(|link| link.parent == parent || count(link.parent) > 1)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(table.shard(7)[&7].links.iter().count(), MAX_LINKS);
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
    fn a_known_inode_fits_its_slot() {
        assert!(size_of::<(u64, Node)>() <= 64, "{}", size_of::<(u64, Node)>());
    }
}
