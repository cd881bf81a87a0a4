//! Consistent hashing with bounded load: the same key goes to the same endpoint as long as that has room.
//!
//! Weighted rendezvous hashing. Every endpoint draws a number from (key, itself), scaled by its weight; the highest
//! wins. Chosen over a ring or a table because the shares are exactly the weights, nothing is built or kept, and what
//! moves when an endpoint comes, goes or changes its weight is its own share and no other key, by construction: nobody
//! else's number changes. The price is one logarithm per endpoint and pick, in a pick that looks at all of them anyway.
//!
//! Bounded load: no endpoint holds more than `BOUND` times its fair part of what is in flight; beyond that a key goes
//! to the endpoint that comes next for it, which is the same one every time.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use super::EndpointView;
use super::random_two::mix;
use crate::policy::cache::cookies;
use crate::policy::uri::NormalUri;

/// How far an endpoint's load may lie above its fair part. 1.25 moves few keys and lets no hot key drown an endpoint.
const BOUND: f64 = 1.25;

/// `hash`: what makes two requests go to the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// `client-ip`
    ClientIp,
    /// `uri`: path and query, normalised, as the client asked.
    Uri,
    /// `header:NAME`: the first field of that name.
    Header(HeaderName),
    /// `cookie:NAME`: the first cookie of that name.
    Cookie(String),
}

/// What a key is made of.
#[derive(Debug, Clone, Copy)]
pub struct HashFacts<'a> {
    /// The client, after PROXY protocol and believed forwarding fields.
    pub client: IpAddr,
    /// Normalised, client-facing.
    pub uri: &'a NormalUri,
    /// The request's fields.
    pub headers: &'a HeaderMap,
}

impl HashBy {
    /// The key of a request; `None` when it has no such header or cookie: any endpoint will do.
    #[must_use]
    pub fn key(&self, facts: &HashFacts<'_>) -> Option<u64> {
        match self {
            Self::ClientIp => Some(match facts.client.to_canonical() {
                IpAddr::V4(address) => digest(&address.octets()),
                IpAddr::V6(address) => digest(&address.octets()),
            }),
            Self::Uri => Some(digest(facts.uri.as_str().as_bytes())),
            Self::Header(name) => facts.headers.get(name).map(|value| digest(value.as_bytes())),
            Self::Cookie(name) => {
                cookies::pairs(facts.headers).find(|(found, _)| found == name).map(|(_, value)| digest(value))
            }
        }
    }
}

/// A hash that is the same in every process and on every node (FNV-1a, finalised), for keys and for endpoints. Clients
/// can look for keys that meet; the bound on the load is what protects the endpoint they meet at.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The endpoint that `key` belongs to.
pub(super) fn choose(views: &[EndpointView], may: impl Fn(&EndpointView) -> bool, key: u64) -> Option<usize> {
    let (mut in_flight, mut weights) = (1_u64, 0_u64);
    for view in views.iter().filter(|view| may(view)) {
        in_flight += u64::from(view.in_flight);
        weights += u64::from(view.weight);
    }
    let per_weight = BOUND * in_flight as f64 / weights as f64;
    let has_room = |view: &EndpointView| f64::from(view.in_flight) < (per_weight * f64::from(view.weight)).ceil();
    let candidates = views.iter().enumerate().filter(|(_, view)| may(view) && has_room(view));
    let scored = candidates.map(|(index, view)| (index, score(key, view.seed, view.weight)));
    // Reversed, so that of equals the first one wins.
    scored.rev().max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(index, _)| index)
}

/// The number that a candidate draws for a key, by the `seed` that is its own: exponentially distributed, so that the
/// chance of the highest is the weight's part of all weights.
#[must_use]
pub fn score(key: u64, seed: u64, weight: u32) -> f64 {
    // 53 bits, in the middle of their step: never 0 and never 1.
    let uniform = ((mix(key ^ seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -uniform.ln()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::tests::up;
    use super::*;

    fn farm(weights: &[u32]) -> Vec<EndpointView> {
        let named = |(index, &weight): (usize, &u32)| EndpointView {
            seed: digest(format!("10.0.0.{index}:80").as_bytes()),
            ..up(weight)
        };
        weights.iter().enumerate().map(named).collect()
    }

    fn owner(views: &[EndpointView], key: u64) -> Option<usize> {
        choose(views, |view| view.weight > 0, digest(&key.to_le_bytes()))
    }

    #[test]
    fn shares_are_the_weights() {
        let views = farm(&[1, 2, 3, 4]);
        let mut counts = [0_u32; 4];
        for key in 0..100_000 {
            counts[owner(&views, key).expect("somebody")] += 1;
        }
        for (count, fair) in counts.into_iter().zip([10_000, 20_000, 30_000, 40_000]) {
            assert!(count.abs_diff(fair) < 800, "{counts:?}");
        }
    }

    proptest! {
        /// One endpoint's weight changes, to or from nothing as well: a key that moves comes from it or goes to it.
        #[test]
        fn a_change_moves_only_the_share_that_changed(
            weights in proptest::collection::vec(0..5_u32, 2..9),
            changed in any::<prop::sample::Index>(),
            weight in 0..5_u32,
        ) {
            let changed = changed.index(weights.len());
            let before = farm(&weights);
            let mut after = before.clone();
            after[changed].weight = weight;
            let grows = weight > weights[changed];
            for key in 0..300 {
                let (old, new) = (owner(&before, key), owner(&after, key));
                if old != new {
                    let side = if grows { new } else { old };
                    prop_assert_eq!(side, Some(changed), "key {} from {:?} to {:?}", key, old, new);
                }
            }
        }

        /// Whatever the keys are, nobody is filled beyond the bound while all of them stay in flight.
        #[test]
        fn a_hot_key_spills_over(weights in proptest::collection::vec(1..5_u32, 1..7), keys in 1..4_u64) {
            let mut views = farm(&weights);
            let sum: u32 = weights.iter().sum();
            for turn in 0..200_u32 {
                let pick = owner(&views, u64::from(turn) % keys).expect("somebody has room");
                views[pick].in_flight += 1;
                let fair = f64::from(turn + 1) * f64::from(views[pick].weight) / f64::from(sum);
                prop_assert!(f64::from(views[pick].in_flight) <= (fair * BOUND).ceil(), "{:?}", views);
            }
        }
    }

    #[test]
    fn keys_come_from_where_they_are_told_to() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("ann"));
        headers.insert("cookie", HeaderValue::from_static("a=1; session=s1"));
        let uri = NormalUri::default();
        let facts =
            |client: &str| HashFacts { client: client.parse().expect("an address"), uri: &uri, headers: &headers };
        let of = |by: HashBy| by.key(&facts("10.1.2.3"));
        assert_eq!(of(HashBy::ClientIp), HashBy::ClientIp.key(&facts("::ffff:10.1.2.3")), "one client, two spellings");
        assert_ne!(of(HashBy::ClientIp), HashBy::ClientIp.key(&facts("10.1.2.4")));
        assert_eq!(of(HashBy::Header(HeaderName::from_static("x-user"))), Some(digest(b"ann")));
        assert_eq!(of(HashBy::Cookie("session".into())), Some(digest(b"s1")));
        assert_eq!(of(HashBy::Cookie("sess".into())), None);
        assert_eq!(of(HashBy::Header(HeaderName::from_static("x-none"))), None);
        assert_eq!(of(HashBy::Uri), Some(digest(uri.as_str().as_bytes())));
    }
}
