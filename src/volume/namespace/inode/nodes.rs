//! The nodes of one shard, in little memory.
//!
//! Nodes lie beside each other, in no order, and a table of their numbers finds them; the last one takes
//! the place of one that goes. A node with one name has that in [`Texts`]; what few inodes have
//! (several names, pins) is kept beside.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hashbrown::HashTable;

use super::links::{Link, Links};
use super::texts::{TextAt, Texts};
use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::identity::InodeIdentity;

/// What is known of an inode.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Node {
    ino: u64,
    /// The directory that the name is in, or was in last.
    parent: u64,
    pub(super) identity: InodeIdentity,
    /// The kernel counts no further than memory has inodes to look up; at the end of this count a
    /// node stays.
    pub(super) lookups: u32,
    at: TextAt,
    /// Fingerprint of the contents that the kernel may have cached; 0 = none.
    pub(super) cached: u16,
    /// Fingerprint of the size that the kernel knows; 0 = none.
    pub(super) size: u16,
    /// Whether the kernel may have pages, and under which key.
    pub(super) pages: PagesUnder,
    length: u8,
    names: Names,
}

/// The number of a key, with room for "no pages" and "pages without a key".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PagesUnder(pub(super) u16);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Names {
    #[default]
    None,
    /// The last one went from the directory.
    Gone,
    One,
    /// They are beside.
    Many,
}

/// Nodes by their inode numbers.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    hasher: RandomState,
    table: HashTable<u32>,
    /// All but the last are full.
    chunks: Vec<Vec<Node>>,
    texts: Texts,
    links: HashMap<u64, Vec<Link>>,
    pins: HashMap<u64, Arc<OwnedFd>>,
}

/// What is left of a node that has gone.
pub(super) struct Removed {
    pub(super) parents: Vec<u64>,
    pub(super) pin: Option<Arc<OwnedFd>>,
}

const CHUNK: usize = 64;
/// Tables of so few entries keep their room.
const FEW: usize = 128;

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, ino: u64) -> Option<&Node> {
        self.find(ino).map(|at| self.at(at))
    }

    pub(super) fn get_mut(&mut self, ino: u64) -> Option<&mut Node> {
        self.find(ino).map(|at| self.at_mut(at))
    }

    /// The numbers of all nodes that are like this.
    pub(super) fn like(&self, is_one: impl Fn(&Node) -> bool) -> impl Iterator<Item = u64> {
        self.chunks.iter().flatten().filter(move |node| is_one(node)).map(|node| node.ino)
    }

    /// The node of an inode, which is made if there is none.
    pub(super) fn get_or_make(&mut self, ino: u64) -> &mut Node {
        let at = self.find(ino).unwrap_or_else(|| self.make(ino));
        self.at_mut(at)
    }

    /// Nothing is known of the inode any more but how often it was looked up, and its pages.
    pub(super) fn reset(&mut self, ino: u64) {
        self.take_links(ino);
        self.pins.remove(&ino);
        if let Some(node) = self.get_mut(ino) {
            let Node { ino, lookups, pages, .. } = *node;
            *node = Node { ino, lookups, pages, ..Node::default() };
        }
    }

    pub(super) fn remove(&mut self, ino: u64) -> Option<Removed> {
        let parents = self.links(ino).map(|(parent, _)| parent).collect();
        drop(self.take_links(ino));
        let pin = self.pins.remove(&ino);
        let Self { hasher, table, chunks, .. } = self;
        let is_it = |at: &u32| node_at(chunks, *at).ino == ino;
        let (at, _) = table.find_entry(hasher.hash_one(ino), is_it).ok()?.remove();
        let last = u32::try_from(self.len()).unwrap_or(u32::MAX);
        if at != last {
            self.move_node(last, at);
        }
        self.chunks.last_mut().and_then(Vec::pop);
        if self.chunks.last().is_some_and(Vec::is_empty) {
            self.chunks.pop();
            self.give_room_back();
        }
        Some(Removed { parents, pin })
    }

    /// The links of an inode, in the order in which they were found.
    pub(super) fn links(&self, ino: u64) -> impl DoubleEndedIterator<Item = (u64, &[u8])> {
        let node = self.get(ino);
        let one = node.filter(|node| node.names == Names::One);
        let one = one.map(|node| (node.parent, self.texts.get(node.at, node.length)));
        let many = node.filter(|node| node.names == Names::Many);
        let many = many.and_then(|_| self.links.get(&ino)).map_or(&[][..], Vec::as_slice);
        one.into_iter().chain(many.iter().map(|link| (link.parent, link.name.bytes())))
    }

    /// The directory that its last link went from, if it has none any more.
    pub(super) fn left(&self, ino: u64) -> Option<u64> {
        self.get(ino).filter(|node| node.names == Names::Gone).map(|node| node.parent)
    }

    /// Adds a link, unless it is known.
    pub(super) fn add_link(&mut self, ino: u64, parent: u64, name: &BackingName) {
        if !self.links(ino).any(|link| link == (parent, name.bytes())) {
            self.change_links(ino, |links| links.add(parent, name));
        }
    }

    pub(super) fn change_links(&mut self, ino: u64, change: impl FnOnce(&mut Links)) {
        if let Some(mut links) = self.take_links(ino) {
            change(&mut links);
            self.put_links(ino, links);
        }
    }

    pub(super) fn pinned(&self, ino: u64) -> Option<&Arc<OwnedFd>> {
        self.pins.get(&ino)
    }

    pub(super) fn pin(&mut self, ino: u64, fd: OwnedFd) {
        if self.find(ino).is_some() {
            self.pins.insert(ino, Arc::new(fd));
        }
    }

    pub(super) fn unpin(&mut self, ino: u64) -> Option<Arc<OwnedFd>> {
        self.pins.remove(&ino)
    }

    fn take_links(&mut self, ino: u64) -> Option<Links> {
        let at = self.find(ino)?;
        let node = *self.at(at);
        self.at_mut(at).names = Names::None;
        Some(match node.names {
            Names::None => Links::None,
            Names::Gone => Links::Gone(node.parent),
            Names::Many => self.links.remove(&ino).map_or(Links::None, Links::Many),
            Names::One => {
                let name = BackingName::new(self.texts.get(node.at, node.length));
                if self.texts.give_up(node.length) {
                    self.put_texts_together();
                }
                name.map_or(Links::None, |name| Links::One(Link { parent: node.parent, name }))
            }
        })
    }

    fn put_links(&mut self, ino: u64, links: Links) {
        let Some(at) = self.find(ino) else { return };
        let mut node = *self.at(at);
        match links {
            Links::None => {}
            Links::Gone(parent) => (node.names, node.parent) = (Names::Gone, parent),
            Links::One(link) => match u8::try_from(link.name.bytes().len()) {
                Ok(length) => {
                    (node.names, node.parent) = (Names::One, link.parent);
                    (node.at, node.length) = (self.texts.put(link.name.bytes()), length);
                }
                Err(_) => {
                    node.names = Names::Many;
                    self.links.insert(ino, vec![link]);
                }
            },
            Links::Many(links) => {
                node.names = Names::Many;
                self.links.insert(ino, links);
            }
        }
        *self.at_mut(at) = node;
    }

    /// Leaves no room for names that are not needed any more.
    fn put_texts_together(&mut self) {
        let mut texts = Texts::default();
        for node in self.chunks.iter_mut().flatten().filter(|node| node.names == Names::One) {
            node.at = texts.put(self.texts.get(node.at, node.length));
        }
        self.texts = texts;
    }

    fn find(&self, ino: u64) -> Option<u32> {
        self.table.find(self.hasher.hash_one(ino), |at| self.at(*at).ino == ino).copied()
    }

    fn make(&mut self, ino: u64) -> u32 {
        let at = u32::try_from(self.len()).expect("a shard has fewer nodes than 2^32");
        match self.chunks.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push(Node { ino, ..Node::default() }),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Node { ino, ..Node::default() });
                self.chunks.push(chunk);
            }
        }
        let Self { hasher, table, chunks, .. } = self;
        table.insert_unique(hasher.hash_one(ino), at, |at| {
            hasher.hash_one(node_at(chunks, *at).ino)
        });
        at
    }

    /// The node at the end goes to a place that is free.
    fn move_node(&mut self, last: u32, to: u32) {
        let node = *self.at(last);
        let hash = self.hasher.hash_one(node.ino);
        if let Some(at) = self.table.find_mut(hash, |at| *at == last) {
            *at = to;
        }
        *self.at_mut(to) = node;
    }

    fn give_room_back(&mut self) {
        let Self { hasher, table, chunks, .. } = self;
        if table.capacity() > FEW && table.len() < table.capacity() / 4 {
            table.shrink_to(table.len() * 2, |at| hasher.hash_one(node_at(chunks, *at).ino));
            self.chunks.shrink_to(self.chunks.len() * 2);
            self.links.shrink_to_fit();
            self.pins.shrink_to_fit();
        }
    }

    /// Bytes that all this takes, besides what few inodes have.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        let nodes = self.chunks.len() * CHUNK * size_of::<Node>();
        nodes + self.table.allocation_size() + self.texts.room()
    }

    fn at(&self, at: u32) -> &Node {
        node_at(&self.chunks, at)
    }

    fn at_mut(&mut self, at: u32) -> &mut Node {
        let (chunk, at) = place(at);
        &mut self.chunks[chunk][at]
    }
}

fn node_at(chunks: &[Vec<Node>], at: u32) -> &Node {
    let (chunk, at) = place(at);
    &chunks[chunk][at]
}

fn place(at: u32) -> (usize, usize) {
    let at = usize::try_from(at).expect("numbers have 64 bits");
    (at / CHUNK, at % CHUNK)
}
