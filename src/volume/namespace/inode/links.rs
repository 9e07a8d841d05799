//! The names by which an inode can be reached.

use crate::volume::backing::beneath::BackingName;

/// How many links are kept of one inode, besides one for each further directory; a file with more is
/// still reached by those.
pub(super) const MAX_LINKS: usize = 32;

/// One name of an inode: the directory's inode number and the encoded name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) struct Link {
    /// Inode number of the directory.
    pub parent: u64,
    /// Name in the backing directory.
    pub name: BackingName,
}

/// All that are known of one inode.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Links {
    #[default]
    None,
    /// The last link went from this directory, whose policy still counts.
    Gone(u64),
    One(Link),
    Many(Vec<Link>),
}

impl Links {
    pub(super) fn add(&mut self, parent: u64, name: &BackingName) {
        if self.as_slice().iter().any(|l| l.parent == parent && l.name == *name) {
            return;
        }
        let link = Link { parent, name: name.clone() };
        *self = match std::mem::take(self) {
            Self::None | Self::Gone(_) => Self::One(link),
            Self::One(first) => Self::Many(vec![first, link]),
            Self::Many(mut links) => {
                if links.len() >= MAX_LINKS {
                    spare(&links, parent).map(|at| links.remove(at));
                }
                links.push(link);
                Self::Many(links)
            }
        };
    }

    pub(super) fn remove(&mut self, parent: u64, name: &BackingName) {
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

    fn as_slice(&self) -> &[Link] {
        match self {
            Self::None | Self::Gone(_) => &[],
            Self::One(link) => std::slice::from_ref(link),
            Self::Many(links) => links,
        }
    }
}

/// The oldest of the links that may go: not the last of a directory, whose policy counts.
fn spare(links: &[Link], parent: u64) -> Option<usize> {
    let count = |of: u64| links.iter().filter(|link| link.parent == of).count();
    links.iter().position(|link| link.parent == parent || count(link.parent) > 1)
}
