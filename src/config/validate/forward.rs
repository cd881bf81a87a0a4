//! What a `[[route]]` does with what it forwards: the pools it goes to, how long they may take, who gets a copy, what is
//! buffered.

use super::{Named, Validation};
use crate::config::model::{ForwardConfig, MirrorConfig};
use crate::config::raw::{RawMirror, RawRoute, RawRouteTimeouts, RawSplit};
use crate::config::shape::{Given, Place};
use crate::policy::balance::hash::HashBy;
use crate::policy::mirror::MirrorParams;
use crate::policy::pool::RouteTimeouts;

impl Validation<'_> {
    /// The forwarding of a route that has a `pool` or a `split`.
    pub(super) fn forward(&mut self, raw: &RawRoute, named: &mut Named) -> ForwardConfig {
        let mut pools: Vec<(usize, u32)> = self.split(raw, named);
        let alone = raw.pool.given().and_then(|name| named.pools.resolve(name, self));
        pools.extend(alone.map(|pool| (pool, 1)));
        ForwardConfig {
            split_by: self.split_by(raw),
            timeouts: raw.timeouts.given().map(|timeouts| route_timeouts(timeouts)),
            mirror: raw.mirror.given().and_then(|mirror| self.mirror(mirror, &pools, named)),
            buffer_request: raw.buffer_request.given().map(|size| size.bytes()),
            buffer_response: raw.buffer_response.given().map(|size| size.bytes()),
            pools,
        }
    }

    /// Reports keys that say how to forward on a route that does not.
    pub(super) fn no_forwarding(&mut self, raw: &RawRoute) {
        let given = [
            raw.split_by.given().map(place),
            raw.timeouts.given().map(place),
            raw.mirror.given().map(place),
            raw.buffer_request.given().map(place),
            raw.buffer_response.given().map(place),
        ];
        for place in given.into_iter().flatten() {
            self.faults.push(place.fault("has no effect: the route goes to no pool", "remove it"));
        }
    }

    fn split(&mut self, raw: &RawRoute, named: &mut Named) -> Vec<(usize, u32)> {
        let Some(split) = raw.split.given() else { return Vec::new() };
        let mut pools: Vec<(usize, u32)> = Vec::new();
        for RawSplit { pool, weight } in split.values() {
            let (Some(name), Some(weight)) = (pool.given(), weight.given()) else { continue };
            let Some(index) = named.pools.resolve(name, self) else { continue };
            if pools.iter().any(|(earlier, _)| *earlier == index) {
                self.faults
                    .push(name.place.fault(format!("= {:?} is listed twice", name.value.0), "add up the weights"));
            }
            pools.push((index, weight.get()));
        }
        if !pools.is_empty() && pools.iter().all(|(_, weight)| *weight == 0) {
            self.faults.push(split.place.fault("has no weight above 0", "raise one of them"));
        }
        pools
    }

    fn split_by(&mut self, raw: &RawRoute) -> Option<HashBy> {
        let given = raw.split_by.given()?;
        if raw.split.is_absent() {
            self.faults.push(given.place.fault("has no effect without split", "add split, or remove it"));
        }
        if let Some(cache) = raw.cache.given() {
            // One client's fetch answers all the others.
            let what = "has no effect on answers from the cache, which are the same for all clients";
            let warning =
                given.place.warning(what, "remove one of them, or put the key's header or cookie into the cache key");
            self.faults.push(warning.related(&cache.place.at, "the cache"));
        }
        self.hash_by(given)
    }

    fn mirror(&mut self, raw: &RawMirror, pools: &[(usize, u32)], named: &mut Named) -> Option<MirrorConfig> {
        let name = raw.pool.given()?;
        let pool = named.pools.resolve(name, self)?;
        if pools.iter().any(|(own, _)| *own == pool) {
            let what = format!("= {:?} is the pool that answers", name.value.0);
            self.faults.push(name.place.fault(what, "name another pool"));
        }
        let params = MirrorParams {
            share: raw.share.0,
            unsafe_methods: raw.unsafe_methods.value,
            max_in_flight: raw.max_in_flight.get(),
            max_body: raw.max_body.0,
        };
        Some(MirrorConfig { pool, params })
    }
}

fn place<T>(given: &Given<T>) -> &Place {
    &given.place
}

fn route_timeouts(raw: &RawRouteTimeouts) -> RouteTimeouts {
    RouteTimeouts {
        connect: raw.connect.given().map(|span| span.0),
        first_byte: raw.first_byte.given().map(|span| span.0),
        idle: raw.idle.given().map(|span| span.0),
        total: raw.total.given().map(|span| span.0),
    }
}
