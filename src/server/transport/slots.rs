//! Connection slots: how many there are, who has them, and which connection has to go.
//!
//! A connection that has not brought a whole request, or waits for its next one, can be had for
//! nothing. So it has little time, and it makes room when somebody comes and all slots are taken:
//! first among those of the same peer, else among those of the peer that has most. A request that
//! is here with its body is answered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::peer::Peer;
use crate::server::config::Limits;

/// Who shares slots: a user on Unix sockets, an address on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::server) enum PeerId {
    User(u32),
    Address(IpAddr),
}

impl PeerId {
    /// Whoever has one IPv6 address has all of its network of 64 bits.
    pub(in crate::server) fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Unix(peer) => Self::User(peer.uid),
            Peer::Tcp { address, .. } => Self::Address(match address.ip().to_canonical() {
                IpAddr::V6(ip) if !ip.is_loopback() => {
                    let network = u128::from(ip) >> 64 << 64;
                    Ipv6Addr::from(network).into()
                }
                ip => ip,
            }),
        }
    }
}

/// All slots.
#[derive(Debug)]
pub(in crate::server) struct ConnectionSlots {
    limits: Limits,
    free: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

/// The slot of one connection. Given back when it is dropped.
#[derive(Debug)]
pub(in crate::server) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    connection: Arc<Connection>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What is known of one connection.
#[derive(Debug)]
pub(in crate::server) struct Connection {
    peer: PeerId,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing came yet.
    Fresh,
    /// A part of a head came.
    Head,
    /// A head came, and perhaps a part of its body.
    Body,
    /// A request is here, and not answered yet.
    Busy,
    /// The last request is answered.
    Kept,
    /// It has to go.
    Leaving,
}

impl ConnectionSlots {
    pub(in crate::server) fn new(limits: Limits) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(limits.connections));
        Arc::new(Self { limits, free, table: Mutex::default() })
    }

    /// A slot for a connection of `peer`, if need be that of another one, which then has to go.
    /// `None`: there is none, since requests are being answered at all of them.
    pub(in crate::server) fn take(self: &Arc<Self>, peer: PeerId) -> Option<ConnectionSlot> {
        let mut table = self.lock();
        let permit = Arc::clone(&self.free).try_acquire_owned().ok();
        let own =
            table.connections.values().filter(|connection| connection.counts_for(peer)).count();
        if permit.is_none() || own >= self.limits.connections_per_peer {
            let at_limit = own >= self.limits.connections_per_peer;
            let from = if at_limit { Some(peer) } else { table.greediest() };
            if !table.make_room(from) {
                return None;
            }
        }
        let number = table.next;
        table.next += 1;
        let since = Instant::now();
        let state = Mutex::new(State { phase: Phase::Fresh, since });
        let connection = Arc::new(Connection { peer, state, changed: Notify::new() });
        table.connections.insert(number, Arc::clone(&connection));
        Some(ConnectionSlot { slots: Arc::clone(self), number, connection, permit })
    }

    /// Returns when no connection has a slot any more.
    pub(in crate::server) async fn all_free(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        let _ = self.free.acquire_many(all).await;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Table {
    /// The peer that has most of the slots that can be had.
    fn greediest(&self) -> Option<PeerId> {
        let mut counts: HashMap<PeerId, usize> = HashMap::new();
        for connection in self.connections.values().filter(|connection| connection.can_leave()) {
            *counts.entry(connection.peer).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer)
    }

    /// Tells the connection of `peer` that has waited longest to go. False if all are at work.
    fn make_room(&self, peer: Option<PeerId>) -> bool {
        let idle = self.connections.values().filter(|connection| Some(connection.peer) == peer);
        let idle = idle.filter(|connection| connection.can_leave());
        idle.min_by_key(|connection| connection.lock().since)
            .is_some_and(|connection| connection.leave())
    }
}

impl ConnectionSlot {
    /// What is known of the connection, for who reads from it and answers it.
    pub(in crate::server) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }

    /// Waits until the connection that had this slot is gone. False if that takes too long.
    pub(in crate::server) async fn is_free(&mut self) -> bool {
        if self.permit.is_none() {
            let free = Arc::clone(&self.slots.free).acquire_owned();
            let permit = timeout(self.slots.limits.queue_time, free).await;
            self.permit = permit.ok().and_then(Result::ok);
        }
        self.permit.is_some()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.lock().connections.remove(&self.number);
    }
}

impl Connection {
    /// Something came from the other end.
    pub(in crate::server) fn heard(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Fresh | Phase::Kept) {
            *state = State { phase: Phase::Head, since: Instant::now() };
            self.changed.notify_one();
        }
    }

    /// The head of a request is here.
    pub(in crate::server) fn head_came(&self) {
        self.enter(Phase::Body);
    }

    /// All of a request is here: it will be answered. False if the connection has to go.
    pub(in crate::server) fn begin(&self) -> bool {
        self.enter(Phase::Busy)
    }

    /// The request is answered.
    pub(in crate::server) fn answered(&self) {
        self.enter(Phase::Kept);
    }

    /// Returns when the connection's time is over, or its slot is needed.
    pub(in crate::server) async fn is_over(&self, limits: &Limits) {
        loop {
            let State { phase, since } = *self.lock();
            let time = match phase {
                Phase::Leaving => return,
                Phase::Fresh => limits.first_time,
                Phase::Head => limits.head_time,
                Phase::Kept => limits.idle_time,
                // What these may take is limited where it is done.
                Phase::Body | Phase::Busy => {
                    self.changed.notified().await;
                    continue;
                }
            };
            tokio::select! {
                () = sleep_until(since + time) => {
                    let state = *self.lock();
                    if (state.phase, state.since) == (phase, since) && self.leave() {
                        return;
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }

    fn enter(&self, phase: Phase) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Leaving {
            return false;
        }
        *state = State { phase, since: Instant::now() };
        self.changed.notify_one();
        true
    }

    /// False if a request is being answered.
    fn leave(&self) -> bool {
        let mut state = self.lock();
        let can = !matches!(state.phase, Phase::Busy | Phase::Leaving);
        if can {
            state.phase = Phase::Leaving;
            self.changed.notify_one();
        }
        can
    }

    fn can_leave(&self) -> bool {
        !matches!(self.lock().phase, Phase::Busy | Phase::Leaving)
    }

    fn counts_for(&self, peer: PeerId) -> bool {
        self.peer == peer && self.lock().phase != Phase::Leaving
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(connections: usize, connections_per_peer: usize) -> Arc<ConnectionSlots> {
        ConnectionSlots::new(Limits { connections, connections_per_peer, ..Limits::default() })
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    const ALICE: PeerId = PeerId::User(1);
    const BOB: PeerId = PeerId::User(2);

    /// The attack: half-sent requests took all slots, and everybody else was turned away.
    #[test]
    fn who_waits_makes_room_and_the_greediest_first() {
        let slots = slots(4, 3);
        let bob = slots.take(BOB).unwrap();
        let alice: Vec<_> = (0..3).map(|_| slots.take(ALICE).unwrap()).collect();
        let mut new = slots.take(BOB).unwrap();
        assert!(!alice[0].connection.can_leave(), "the oldest of the greediest goes");
        assert!(bob.connection.can_leave() && alice[1].connection.can_leave());
        run(async {
            let limits = slots.limits;
            alice[0].connection.is_over(&limits).await;
            drop(alice);
            assert!(new.is_free().await);
        });
    }

    #[test]
    fn a_peer_at_its_limit_takes_from_itself_alone() {
        let slots = slots(9, 2);
        let bob = slots.take(BOB).unwrap();
        let (one, two) = (slots.take(ALICE).unwrap(), slots.take(ALICE).unwrap());
        assert!(one.connection.begin() && two.connection.begin());
        assert!(slots.take(ALICE).is_none(), "both are at work");
        assert!(slots.take(BOB).is_some() && bob.connection.can_leave());
        two.connection.answered();
        assert!(slots.take(ALICE).is_some());
        assert!(!two.connection.can_leave() && !two.connection.begin());
    }

    #[test]
    fn who_is_at_work_stays() {
        let slots = slots(2, 2);
        let (one, two) = (slots.take(ALICE).unwrap(), slots.take(BOB).unwrap());
        assert!(one.connection.begin() && two.connection.begin());
        assert!(slots.take(PeerId::User(3)).is_none());
        drop(one);
        assert!(slots.take(PeerId::User(3)).is_some());
        assert!(!two.connection.leave());
    }

    #[test]
    fn one_network_is_one_peer() {
        let of = |text: &str| {
            PeerId::of(&Peer::Tcp { address: text.parse().unwrap(), encrypted: false })
        };
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:0:0:2]:9"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }
}
