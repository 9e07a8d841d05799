//! Inodes by their numbers: what the kernel asks when it has a file handle (name_to_handle_at(2)) to an
//! inode that it has forgotten.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Errno, Generation, ReplyEntry};
use parking_lot::Mutex;

use super::Adapter;
use crate::fuse::convert::file_attr;
use crate::fuse::errno::errno;
use crate::volume::Volume;

/// Who looks for inodes, one thread for all that are looked for.
#[derive(Debug, Default)]
pub(super) struct Searches(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    numbers: Vec<(u64, ReplyEntry)>,
    searcher: Option<JoinHandle<()>>,
    searching: bool,
    ended: bool,
}

impl Searches {
    /// Ends them: nobody waits any more.
    pub(super) fn finish(&self) {
        let searcher = {
            let mut waiting = self.0.lock();
            waiting.ended = true;
            waiting.searcher.take()
        };
        if let Some(searcher) = searcher {
            let _ = searcher.join();
        }
    }

    /// What is to be looked for next; `None` ends the thread.
    fn take(&self) -> Option<Vec<(u64, ReplyEntry)>> {
        let mut waiting = self.0.lock();
        waiting.searching = !waiting.numbers.is_empty() && !waiting.ended;
        waiting.searching.then(|| std::mem::take(&mut waiting.numbers))
    }

    fn has_ended(&self) -> bool {
        self.0.lock().ended
    }

    fn search(&self, volume: &Volume, ttl: Duration) {
        while let Some(waiting) = self.take() {
            let mut numbers: Vec<u64> = waiting.iter().map(|(ino, _)| *ino).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let mut found = volume.find_numbers(&numbers, || !self.has_ended());
            for (ino, reply) in waiting {
                // Another one who waits for the same has a lookup of their own.
                let attr = match found.remove(&ino) {
                    None => volume.look_up_number(ino).ok().flatten(),
                    found => found,
                };
                match attr {
                    Some(attr) => {
                        reply.entry(&ttl, &file_attr(&attr), Generation(attr.generation));
                    }
                    None => reply.error(Errno::ESTALE),
                }
            }
        }
    }
}

impl Adapter {
    /// Answers a lookup of the directory entry that leads to the inode itself, or above it.
    pub(super) fn by_number(&self, reply: ReplyEntry, ino: u64, above: bool) {
        let known = match above {
            true => self.volume().look_up_parent(ino).map(Some),
            false => self.volume().look_up_number(ino),
        };
        match known {
            Ok(Some(attr)) => self.entry(reply, Ok(attr)),
            Ok(None) => self.look_for(reply, ino),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// On a thread of its own: it may take long, and requests of others are answered meanwhile.
    fn look_for(&self, reply: ReplyEntry, ino: u64) {
        let mut waiting = self.searches.0.lock();
        waiting.numbers.push((ino, reply));
        if waiting.searching {
            return;
        }
        let (searches, volume, ttl) = (Arc::clone(&self.searches), self.volume.clone(), self.ttl);
        let search = move || searches.search(&volume, ttl);
        match std::thread::Builder::new().name("search".to_owned()).spawn(search) {
            Ok(searcher) => (waiting.searching, waiting.searcher) = (true, Some(searcher)),
            // The replies go, which is an error.
            Err(_) => waiting.numbers.clear(),
        }
    }
}
