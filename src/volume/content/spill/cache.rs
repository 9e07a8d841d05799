//! Decrypted spill pages in memory, bounded over all files and shared fairly between them, and what
//! is known of each group of a file.
//!
//! Every page in memory has a [`Seat`]. When all are taken, whoever needs one gets the seat of a
//! page that was not used for a whole round, whichever file it belongs to (a clock over all files),
//! so that a large file that lies idle does not keep the others from having pages. What is known of
//! a group besides its page, its [`Roles`], stays with its file: without it the next write might go
//! over the durable copy.
//!
//! Locks: a file's [`Spills`], then the seats. Pages of another file are taken only if its lock is
//! free at that moment, so no order between two files is needed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::roles::Roles;
use crate::envelope::SpillPage;
use crate::envelope::layout::{Copy2, Group};
use crate::volume::content::pages::Arrival;

/// The seats of all files of a volume.
#[derive(Debug)]
pub(in crate::volume::content) struct SpillCache {
    capacity: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Occupant>>,
    free: Vec<usize>,
    hand: usize,
}

#[derive(Debug)]
struct Occupant {
    spills: Weak<Spills>,
    group: Group,
}

/// The right to keep one page in memory; given back on drop.
#[derive(Debug)]
struct Seat {
    cache: Arc<SpillCache>,
    number: usize,
}

/// What one file has of its groups in memory.
///
/// *Order of an update*: (1) the page changes in memory ([`Self::change`]) and stays there; (2) it is
/// sealed, one number on, for the copy that may be written over ([`Self::seal`]); (3) it is written,
/// and what arrived is noted ([`Self::arrived`]), or (4) the change is taken back
/// ([`Self::restore`]). *Crash*: until a sync, the durable copy is as it was (see
/// [`Durability`](crate::volume::content::durability::Durability)), whatever became of (3).
#[derive(Debug)]
pub(in crate::volume::content) struct Spills {
    cache: Arc<SpillCache>,
    groups: Mutex<Groups>,
}

type Groups = HashMap<Group, CachedGroup>;

/// A group of a file.
#[derive(Debug, Default)]
struct CachedGroup {
    /// The decrypted page; dropped when another page needs the seat, read again when needed.
    page: Option<Cached>,
    roles: Roles,
    /// The page was used since the clock came by.
    used: bool,
    /// A change of the page is under way: memory is ahead of what was written.
    changing: bool,
}

#[derive(Debug)]
struct Cached {
    page: SpillPage,
    seat: Seat,
}

impl Default for SpillCache {
    fn default() -> Self {
        Self::of(CAPACITY)
    }
}

impl SpillCache {
    /// A cache of `capacity` pages, and of one page at least.
    pub(in crate::volume::content) fn of(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), seats: Mutex::default() }
    }

    /// A seat for the page of `group`, a group of the file `own`. Where every page is in use, there
    /// is one seat more for a while.
    ///
    /// Locks: the caller holds those of `own`, which are `groups`.
    fn seat(self: &Arc<Self>, group: Group, own: &Arc<Spills>, groups: &mut Groups) -> Seat {
        // Dropped when the seats are free again: each may be the last of its kind, and its drop
        // gives seats back.
        let (mut emptied, mut looked_at) = (Vec::new(), Vec::new());
        let mut seats = self.lock();
        while seats.in_use() >= self.capacity + emptied.len() {
            match seats.empty_one(own, groups, &mut looked_at) {
                Some(cached) => emptied.push(cached),
                None => break,
            }
        }
        let occupant = Occupant { spills: Arc::downgrade(own), group };
        match emptied.pop() {
            Some(Cached { seat, .. }) => {
                seats.occupy(seat.number, occupant);
                seat
            }
            None => Seat { cache: Arc::clone(self), number: seats.take(occupant) },
        }
    }

    /// How many pages are in memory.
    #[cfg(test)]
    pub(in crate::volume::content) fn in_use(&self) -> usize {
        self.lock().in_use()
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock()
    }
}

impl Seats {
    fn in_use(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    fn take(&mut self, occupant: Occupant) -> usize {
        if let Some(number) = self.free.pop() {
            self.occupy(number, occupant);
            return number;
        }
        self.taken.push(Some(occupant));
        self.taken.len() - 1
    }

    fn occupy(&mut self, number: usize, occupant: Occupant) {
        self.taken[number] = Some(occupant);
    }

    /// Takes the next page that nobody used for a round. Two rounds at most: the first one may only
    /// note what is used.
    fn empty_one(
        &mut self,
        own: &Arc<Spills>,
        groups: &mut Groups,
        looked_at: &mut Vec<Arc<Spills>>,
    ) -> Option<Cached> {
        for _ in 0..2 * self.taken.len() {
            self.hand = (self.hand + 1) % self.taken.len();
            let Some(occupant) = &self.taken[self.hand] else { continue };
            let group = occupant.group;
            let emptied = if std::ptr::eq(occupant.spills.as_ptr(), Arc::as_ptr(own)) {
                empty(groups, group)
            } else if let Some(other) = occupant.spills.upgrade() {
                let free = other.groups.try_lock();
                let emptied = free.and_then(|mut groups| empty(&mut groups, group));
                looked_at.push(other);
                emptied
            } else {
                None
            };
            if emptied.is_some() {
                return emptied;
            }
        }
        None
    }
}

/// Takes a group's page out of memory, unless it is used or memory is ahead of the disk.
fn empty(groups: &mut Groups, group: Group) -> Option<Cached> {
    let known = groups.get_mut(&group)?;
    if std::mem::take(&mut known.used) || known.changing || known.roles.copies().is_owed() {
        return None;
    }
    let cached = known.page.take();
    if known.roles.is_forgettable() {
        groups.remove(&group);
    }
    cached
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.cache.lock();
        seats.taken[self.number] = None;
        seats.free.push(self.number);
    }
}

impl Spills {
    /// The groups of a file, with what is known of them.
    pub(in crate::volume::content) fn new(
        cache: &Arc<SpillCache>,
        known: HashMap<Group, Roles>,
    ) -> Arc<Self> {
        let known = known
            .into_iter()
            .map(|(group, roles)| (group, CachedGroup { roles, ..CachedGroup::default() }));
        Arc::new(Self { cache: cache.clone(), groups: Mutex::new(known.collect()) })
    }

    /// Runs `work` on a group's page and roles. A page that is not in memory comes from `load`, which
    /// gets the roles as far as they are known; if it fails, what is known stays as it is.
    ///
    /// *Locks*: the caller holds the file's state, at least shared, so nothing changes the page while it
    /// comes from the disk. Other groups are at hand meanwhile.
    ///
    /// # Errors
    /// Those of `load`.
    pub(in crate::volume::content) fn with<T, E>(
        self: &Arc<Self>,
        group: Group,
        load: impl FnOnce(Option<Roles>) -> Result<(SpillPage, Roles), E>,
        work: impl FnOnce(&SpillPage, &Roles) -> T,
    ) -> Result<T, E> {
        let known = {
            let mut groups = self.lock();
            match groups.get_mut(&group) {
                Some(CachedGroup { page: Some(cached), roles, used, .. }) => {
                    *used = true;
                    return Ok(work(&cached.page, roles));
                }
                known => known.map(|known| known.roles),
            }
        };
        let loaded = load(known)?;
        let mut groups = self.lock();
        // Another reader may have been faster.
        let known = self.loaded(&mut groups, group, |_| Ok(loaded))?;
        let page = &known.page.as_ref().expect(LOADED).page;
        Ok(work(page, &known.roles))
    }

    /// True if a group's page is in memory.
    pub(in crate::volume::content) fn has_page(&self, group: Group) -> bool {
        self.lock().get(&group).is_some_and(|known| known.page.is_some())
    }

    /// Changes a group's page and returns it as it was after `prepare`. Until the page was written
    /// ([`Self::arrived`]) or put back ([`Self::restore`]) it stays in memory.
    ///
    /// # Errors
    /// Those of `load`.
    pub(in crate::volume::content) fn change<E>(
        self: &Arc<Self>,
        group: Group,
        load: impl FnOnce(Option<Roles>) -> Result<(SpillPage, Roles), E>,
        prepare: impl FnOnce(&mut SpillPage, &Roles),
        work: impl FnOnce(&mut SpillPage),
    ) -> Result<SpillPage, E> {
        let mut groups = self.lock();
        let known = self.loaded(&mut groups, group, load)?;
        known.changing = true;
        let page = &mut known.page.as_mut().expect(LOADED).page;
        prepare(page, &known.roles);
        let before = page.clone();
        work(page);
        Ok(before)
    }

    /// Puts a group's page back to what it was, after its write failed.
    pub(in crate::volume::content) fn restore(&self, group: Group, before: SpillPage) {
        let mut groups = self.lock();
        let known = changing(&mut groups, group);
        known.changing = false;
        known.page.as_mut().expect(CHANGING).page = before;
    }

    /// The copy that the changed page of a group goes to.
    pub(in crate::volume::content) fn target(&self, group: Group) -> Copy2 {
        changing(&mut self.lock(), group).roles.copies().target()
    }

    /// Seals the changed page of a group, one number on, for the copy that may be written over. The
    /// number counts even if the write fails: it is never used for two contents (R6).
    ///
    /// # Errors
    /// Those of `seal`.
    pub(in crate::volume::content) fn seal<E>(
        &self,
        group: Group,
        seal: impl FnOnce(Copy2, &SpillPage) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut groups = self.lock();
        let known = changing(&mut groups, group);
        let (page, number) = (known.page.as_mut().expect(CHANGING), known.roles.next_number());
        page.page.set_sequence(number);
        seal(known.roles.copies().target(), &page.page)?;
        known.roles.number_given(number);
        Ok(())
    }

    /// Notes what the write of the sealed page has left in its target.
    pub(in crate::volume::content) fn arrived(
        &self,
        group: Group,
        arrival: Arrival,
        generation: u64,
    ) {
        let mut groups = self.lock();
        let known = changing(&mut groups, group);
        match arrival {
            Arrival::Whole => known.roles.copies_mut().wrote(generation),
            Arrival::Unknown => known.roles.copies_mut().owe(),
            Arrival::Nothing => return,
        }
        known.changing = false;
    }

    /// True if the changed page of a group arrived whole after `generation`.
    pub(in crate::volume::content) fn is_out_since(&self, group: Group, generation: u64) -> bool {
        self.lock().get(&group).is_some_and(|k| k.roles.copies().is_newer_than(generation))
    }

    /// True if a copy of the group's page is known to be in the file.
    pub(in crate::volume::content) fn is_there(&self, group: Group) -> bool {
        self.lock().get(&group).is_some_and(|known| !known.roles.is_absent())
    }

    /// The groups whose page is to be written before a sync counts, in order.
    pub(in crate::volume::content) fn owed(&self) -> Vec<Group> {
        let groups = self.lock();
        let owed = groups.iter().filter(|(_, known)| known.roles.copies().is_owed());
        let mut owed: Vec<_> = owed.map(|(group, _)| *group).collect();
        owed.sort_unstable();
        owed
    }

    /// True if there are any.
    pub(in crate::volume::content) fn owes_anything(&self) -> bool {
        self.lock().values().any(|known| known.roles.copies().is_owed())
    }

    /// A sync succeeded that began when `generation` was the newest. `durable` gets the pages whose
    /// copy is durable by that.
    pub(in crate::volume::content) fn synced(
        &self,
        generation: u64,
        durable: impl Fn(Group, &mut SpillPage),
    ) {
        let mut groups = self.lock();
        for (group, known) in groups.iter_mut() {
            if known.roles.copies_mut().synced(generation)
                && let Some(cached) = &mut known.page
            {
                durable(*group, &mut cached.page);
            }
        }
        groups.retain(|_, known| known.page.is_some() || !known.roles.is_forgettable());
    }

    /// A sync failed: every page written since the last one is owed.
    pub(in crate::volume::content) fn sync_failed(&self) {
        self.lock().values_mut().for_each(|known| known.roles.copies_mut().sync_failed());
    }

    /// The pages of these groups are cut off.
    pub(in crate::volume::content) fn cut_off(
        &self,
        is_gone: impl Fn(Group) -> bool,
        mut generation: impl FnMut() -> u64,
    ) {
        for (_, known) in self.lock().iter_mut().filter(|(group, _)| is_gone(**group)) {
            let roles = known.roles.cut_off(generation());
            *known = CachedGroup { roles, ..CachedGroup::default() };
        }
    }

    /// Forgets the pages, but not which copies of them are durable.
    pub(in crate::volume::content) fn drop_pages(&self) {
        self.lock().retain(|_, known| {
            *known = CachedGroup { roles: known.roles, ..CachedGroup::default() };
            !known.roles.is_forgettable()
        });
    }

    /// What is known of the groups that the disk does not tell.
    pub(in crate::volume::content) fn known(&self) -> HashMap<Group, Roles> {
        let groups = self.lock();
        let known = groups.iter().filter(|(_, known)| !known.roles.is_forgettable());
        known.map(|(group, known)| (*group, known.roles)).collect()
    }

    /// Forgets everything: it is of another file.
    pub(in crate::volume::content) fn clear(&self) {
        self.lock().clear();
    }

    /// The groups whose page is in memory.
    #[cfg(test)]
    pub(in crate::volume::content) fn cached(&self) -> std::collections::BTreeSet<u64> {
        let groups = self.lock();
        let cached = groups.iter().filter(|(_, known)| known.page.is_some());
        cached.map(|(group, _)| group.0).collect()
    }

    fn loaded<'a, E>(
        self: &Arc<Self>,
        groups: &'a mut Groups,
        group: Group,
        load: impl FnOnce(Option<Roles>) -> Result<(SpillPage, Roles), E>,
    ) -> Result<&'a mut CachedGroup, E> {
        if groups.get(&group).is_none_or(|known| known.page.is_none()) {
            let (page, roles) = load(groups.get(&group).map(|known| known.roles))?;
            let seat = self.cache.seat(group, self, groups);
            let page = Some(Cached { page, seat });
            groups.insert(group, CachedGroup { page, roles, ..CachedGroup::default() });
        }
        let known = groups.get_mut(&group).expect(LOADED);
        known.used = true;
        Ok(known)
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock()
    }
}

/// The state of a group whose page is being changed, or is owed: neither leaves memory.
fn changing(groups: &mut Groups, group: Group) -> &mut CachedGroup {
    groups.get_mut(&group).expect(CHANGING)
}

const LOADED: &str = "a page that was just loaded is in memory";
const CHANGING: &str = "a page that is being changed stays in memory";
/// Pages kept in memory over all files: 4 KiB each.
const CAPACITY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::EntryState;

    type Loaded = Result<(SpillPage, Roles), &'static str>;

    /// A file whose groups are told apart by the binding of their first entry.
    fn file(capacity: usize) -> (Arc<SpillCache>, Arc<Spills>) {
        let cache = Arc::new(SpillCache::of(capacity));
        let spills = Spills::new(&cache, HashMap::new());
        (cache, spills)
    }

    fn load(group: u64) -> impl FnOnce(Option<Roles>) -> Loaded {
        move |known| {
            let mut page = SpillPage::empty(Group(group));
            page.set(0, EntryState::Hole, [u8::try_from(group).unwrap(); 8], &[]);
            Ok((page, known.unwrap_or_default()))
        }
    }

    fn read(spills: &Arc<Spills>, group: u64) -> u8 {
        spills.with(Group(group), load(group), |page, _| page.entry(0).binding[0]).unwrap()
    }

    fn change(spills: &Arc<Spills>, group: u64) -> SpillPage {
        let set = |page: &mut SpillPage| page.set(1, EntryState::Hole, [9; 8], &[]);
        spills.change(Group(group), load(group), |_, _| {}, set).unwrap()
    }

    fn write(spills: &Arc<Spills>, group: u64, arrival: Arrival, generation: u64) -> (Copy2, u64) {
        change(spills, group);
        let mut went = None;
        let seal = |copy, page: &SpillPage| {
            went = Some((copy, page.sequence()));
            Ok::<_, ()>(())
        };
        spills.seal(Group(group), seal).unwrap();
        spills.arrived(Group(group), arrival, generation);
        went.unwrap()
    }

    fn in_memory(spills: &Spills) -> Vec<u64> {
        spills.cached().into_iter().collect()
    }

    #[test]
    fn a_cache_of_two_pages_keeps_two_and_the_roles_of_all() {
        let (cache, spills) = file(2);
        for group in 1..=5 {
            write(&spills, group, Arrival::Whole, group);
            assert_eq!(read(&spills, group), u8::try_from(group).unwrap());
            assert!(cache.in_use() <= 2);
        }
        assert_eq!(in_memory(&spills).len(), 2);
        assert_eq!(spills.known().len(), 5, "nothing is durable yet");
        spills.synced(5, |_, _| {});
        assert!(spills.known().is_empty(), "the disk tells all of it");
        drop(spills);
        assert_eq!(cache.in_use(), 0, "a closed file gives its seats back");
    }

    #[test]
    fn a_page_that_is_ahead_of_the_disk_stays_in_memory() {
        let (cache, spills) = file(2);
        change(&spills, 1);
        write(&spills, 2, Arrival::Unknown, 1);
        for group in 3..=6 {
            read(&spills, group);
        }
        assert!(spills.cached().is_superset(&[1, 2].into()));
        assert_eq!(cache.in_use(), 3, "one seat more for a while");
        spills.restore(Group(1), SpillPage::empty(Group(1)));
        write(&spills, 2, Arrival::Whole, 2);
        for group in 3..=6 {
            read(&spills, group);
        }
        assert_eq!((in_memory(&spills), cache.in_use()), (vec![5, 6], 2));
    }

    #[test]
    fn files_share_the_seats() {
        let (cache, large) = file(2);
        let small = Spills::new(&cache, HashMap::new());
        for (file, group) in [(&large, 1), (&large, 2), (&small, 1), (&small, 2), (&small, 1)] {
            read(file, group);
        }
        assert_eq!((in_memory(&large), in_memory(&small)), (vec![], vec![1, 2]));
    }

    #[test]
    fn a_page_that_cannot_be_loaded_leaves_what_is_known() {
        let (_, spills) = file(2);
        write(&spills, 1, Arrival::Whole, 1);
        spills.synced(1, |_, _| {});
        let (target, number) = write(&spills, 1, Arrival::Whole, 2);
        spills.drop_pages();
        let failed = spills.with(Group(1), |_| Err("a failing disk"), |_, _| ());
        assert_eq!(failed, Err("a failing disk"));
        assert_eq!(write(&spills, 1, Arrival::Whole, 3), (target, number + 1));
    }

    #[test]
    fn an_update_never_goes_to_the_durable_copy_and_no_number_comes_twice() {
        let (_, spills) = file(2);
        let (mut durable, mut last) = (None, 0);
        for (generation, arrival) in (1..).zip([Arrival::Whole, Arrival::Nothing, Arrival::Unknown])
        {
            for repeat in 0..2 {
                let (copy, number) = write(&spills, 1, arrival, 10 * generation + repeat);
                assert!(Some(copy) != durable && number > last, "{arrival:?}");
                last = number;
            }
            let (copy, number) = write(&spills, 1, Arrival::Whole, 10 * generation + 2);
            spills.synced(10 * generation + 2, |_, _| {});
            (durable, last) = (Some(copy), number);
        }
        spills.cut_off(|group| group == Group(1), || 100);
        assert!(!spills.is_there(Group(1)));
        assert_eq!(write(&spills, 1, Arrival::Whole, 101), (Copy2::First, last + 1));
    }

    #[test]
    fn a_write_that_may_have_arrived_is_owed_and_a_failed_sync_owes_all_since_the_last() {
        let (_, spills) = file(2);
        write(&spills, 1, Arrival::Whole, 1);
        write(&spills, 2, Arrival::Unknown, 2);
        assert_eq!(spills.owed(), [Group(2)]);
        spills.synced(2, |group, _| assert_eq!(group, Group(1)));
        assert!(spills.owes_anything());
        let (target, _) = write(&spills, 2, Arrival::Whole, 3);
        write(&spills, 3, Arrival::Whole, 4);
        spills.sync_failed();
        assert_eq!(spills.owed(), [Group(2), Group(3)], "group 1 is durable");
        spills.synced(9, |_, _| panic!("nothing of it is known to be on the disk"));
        assert_eq!(write(&spills, 2, Arrival::Whole, 10).0, target, "the same copy again");
    }

    #[test]
    fn a_change_that_was_not_written_is_taken_back_to_what_was_prepared() {
        let (_, spills) = file(2);
        let hole = |page: &mut SpillPage, at| page.set(at, EntryState::Hole, [0; 8], &[]);
        let prepare = |page: &mut SpillPage, _: &Roles| hole(page, 2);
        let before = spills.change(Group(1), load(1), prepare, |page| hole(page, 3)).unwrap();
        spills.restore(Group(1), before);
        let states = |page: &SpillPage, _: &Roles| [2, 3].map(|at| page.entry(at).state);
        let found = spills.with(Group(1), load(1), states).unwrap();
        assert_eq!(found, [EntryState::Hole, EntryState::Absent]);
    }
}
