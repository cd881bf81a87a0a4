//! Where an endpoint whose address is a name is to be found at present. [`Discovery`](super::Discovery) asks and writes
//! it down; connections are opened by it, and let go when what they lead to is no part of it any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

/// See the module. Of an address that is no name nothing is ever known.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: watch::Sender<Known>,
    /// Which of several addresses the next connection begins with.
    rotation: AtomicU32,
    /// Counts the answers in which an address was missing that had been there.
    departures: AtomicU32,
}

#[derive(Debug, Clone, Default)]
struct Known {
    /// The last good answer.
    addresses: Arc<[SocketAddr]>,
    /// At least one question has been answered, well or not.
    asked: bool,
}

/// Where a connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lead {
    peer: SocketAddr,
    /// The count of departures by which `peer` was known to be there.
    departures: u32,
}

impl Names {
    /// Keeps a good answer.
    pub(super) fn keep(&self, addresses: Vec<SocketAddr>) {
        let gone = self.known.borrow().addresses.iter().any(|known| !addresses.contains(known));
        self.known.send_replace(Known { addresses: addresses.into(), asked: true });
        if gone {
            // Behind the answer: whoever sees the new count must not look into the old answer.
            self.departures.fetch_add(1, Ordering::Release);
        }
    }

    /// Notes that a question brought nothing; the last good answer stays.
    pub(super) fn miss(&self) {
        self.known.send_if_modified(|known| !std::mem::replace(&mut known.asked, true));
    }

    /// The last good answer, and where in it to begin: one further at each call. Waits for the first question's outcome;
    /// empty when there never was a good one.
    pub(super) async fn addresses(&self) -> (Arc<[SocketAddr]>, usize) {
        let mut known = self.known.subscribe();
        // The sender is ours: it cannot be gone.
        let addresses = known.wait_for(|known| known.asked).await.map(|known| Arc::clone(&known.addresses));
        let addresses = addresses.unwrap_or_default();
        let turn = self.rotation.fetch_add(1, Ordering::Relaxed) as usize;
        let first = turn.checked_rem(addresses.len()).unwrap_or(0);
        (addresses, first)
    }

    /// A connection to `peer`. The address may have left while it was opened: the first [`Self::has`] looks for it.
    pub(super) fn lead(&self, peer: SocketAddr) -> Lead {
        Lead { peer, departures: self.departures.load(Ordering::Acquire).wrapping_sub(1) }
    }

    /// Whether the address a connection leads to is still known. Cost: one load, unless an address has left since the
    /// last call.
    pub(super) fn has(&self, lead: &mut Lead) -> bool {
        let departures = self.departures.load(Ordering::Acquire);
        if lead.departures != departures {
            if !self.known.borrow().addresses.contains(&lead.peer) {
                return false;
            }
            lead.departures = departures;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn connections_begin_with_another_address_each_and_wait_for_the_first_answer() {
        let names = Names::default();
        assert!(names.addresses().now_or_never().is_none(), "nobody was asked yet");
        names.miss();
        assert_eq!(names.addresses().now_or_never().expect("asked").0.len(), 0);
        names.keep(vec![at(1), at(2)]);
        names.miss();
        let turns = [(); 3].map(|()| names.addresses().now_or_never().expect("an answer"));
        assert!(turns.iter().all(|(addresses, _)| **addresses == [at(1), at(2)]), "a miss takes nothing");
        assert_ne!(turns[0].1, turns[1].1);
        assert_eq!(turns[0].1, turns[2].1);
    }

    #[test]
    fn a_connection_is_let_go_when_its_address_leaves() {
        let names = Names::default();
        names.keep(vec![at(1), at(2)]);
        let (mut first, mut second) = (names.lead(at(1)), names.lead(at(2)));
        names.keep(vec![at(1), at(2), at(3)]);
        assert!(names.has(&mut first) && names.has(&mut second), "who joins drives nobody out");
        names.keep(vec![at(2)]);
        assert!(!names.has(&mut first) && names.has(&mut second));
        names.keep(vec![at(1), at(2)]);
        assert!(names.has(&mut first) && names.has(&mut second), "it came back before anybody looked");
    }
}
