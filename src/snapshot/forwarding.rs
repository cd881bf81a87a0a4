//! Where the exchanges of one route go, and how.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::model::{ForwardConfig, MirrorConfig};
use crate::policy::balance::hash::{HashBy, digest};
use crate::policy::mirror::MirrorParams;
use crate::policy::pool::PoolTimeouts;
use crate::policy::split::Part;
use crate::upstream::Pool;

/// What a route that forwards says of it.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// `pool`, or those of `split`.
    pub destinations: Vec<Destination>,
    /// `split_by`; `None` = chance.
    pub split_by: Option<HashBy>,
    /// `mirror`
    pub mirror: Option<Arc<Mirror>>,
    /// `buffer_request` in bytes; `None` = bodies stream.
    pub buffer_request: Option<usize>,
    /// `buffer_response` in bytes; `None` = nothing is read ahead.
    pub buffer_response: Option<usize>,
}

/// One pool of a route.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Its place in a split.
    pub part: Part,
    /// How long its origins may take; `None` = as long as the pool says.
    pub timeouts: Option<Arc<PoolTimeouts>>,
}

/// `mirror` at run time.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Who gets the copies.
    pub pool: Arc<Pool>,
    /// What is copied.
    pub params: MirrorParams,
    /// Copies under way, over all workers and generations.
    under_way: Arc<AtomicU32>,
}

/// One copy under way, until dropped.
#[derive(Debug)]
pub struct MirrorGuard(Arc<AtomicU32>);

impl Forwarding {
    /// `previous` is what the route of the same name said before: copies that are under way count on.
    pub(super) fn build(config: &ForwardConfig, pools: &[Arc<Pool>], previous: Option<&Self>) -> Self {
        let destination = |&(pool, weight): &(usize, u32)| {
            let pool = Arc::clone(pools.get(pool)?);
            let part = Part { weight, seed: digest(pool.name.as_bytes()) };
            let timeouts = config.timeouts.map(|timeouts| Arc::new(timeouts.over(&pool.params.timeouts)));
            Some(Destination { pool, part, timeouts })
        };
        let mirror = |mirror: &MirrorConfig| {
            let before = previous.and_then(|previous| previous.mirror.as_ref());
            let under_way = before.map_or_else(Arc::default, |before| Arc::clone(&before.under_way));
            Some(Arc::new(Mirror {
                pool: Arc::clone(pools.get(mirror.pool)?),
                params: mirror.params.clone(),
                under_way,
            }))
        };
        Self {
            destinations: config.pools.iter().filter_map(destination).collect(),
            split_by: config.split_by.clone(),
            mirror: config.mirror.as_ref().and_then(mirror),
            buffer_request: config.buffer_request,
            buffer_response: config.buffer_response,
        }
    }

    /// The same with the `newest` of each pool.
    pub(super) fn with_pools(&self, newest: impl Fn(&Arc<Pool>) -> Arc<Pool>) -> Self {
        let mut next = self.clone();
        for destination in &mut next.destinations {
            destination.pool = newest(&destination.pool);
        }
        next.mirror =
            next.mirror.map(|mirror| Arc::new(Mirror { pool: newest(&mirror.pool), ..Mirror::clone(&mirror) }));
        next
    }
}

impl Mirror {
    /// Counts one copy more; `None` when `max_in_flight` are under way.
    #[must_use]
    pub fn enter(&self) -> Option<MirrorGuard> {
        let room = |taken: u32| (taken < self.params.max_in_flight).then(|| taken + 1);
        self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(MirrorGuard(Arc::clone(&self.under_way)))
    }
}

impl Drop for MirrorGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
