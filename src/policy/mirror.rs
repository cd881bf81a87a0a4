//! Which requests are copied for another pool.

use http::Method;

/// `mirror` of a route, without its pool.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorParams {
    /// `share` of the requests, 0..=1.
    pub share: f64,
    /// `unsafe_methods`: requests that may change something are copied too.
    pub unsafe_methods: bool,
    /// `max_in_flight`: copies under way at once, over all workers.
    pub max_in_flight: u32,
    /// `max_body`: the longest request body that is copied, in bytes.
    pub max_body: u64,
}

/// What the decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct MirrorFacts<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// It asks to leave HTTP.
    pub upgrade: bool,
    /// The length of its body, where that is known.
    pub length: Option<u64>,
    /// Any number.
    pub random: u64,
}

/// Why a request is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotMirrored {
    /// It may change something, and `unsafe_methods` is not set.
    UnsafeMethod,
    /// What follows an upgrade is no request.
    Upgrade,
    /// It is not in the `share`.
    NotSampled,
    /// Its body is longer than `max_body`.
    BodyTooLarge,
    /// Its body did not come to its end.
    BodyCut,
    /// `max_in_flight` copies are under way.
    InFlight,
    /// No endpoint of the pool takes it.
    NoEndpoint,
}

impl NotMirrored {
    /// Stable name.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::UnsafeMethod => "unsafe_method",
            Self::Upgrade => "upgrade",
            Self::NotSampled => "not_sampled",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyCut => "body_cut",
            Self::InFlight => "in_flight",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}

/// Whether to copy a request.
///
/// # Errors
/// Why not.
pub fn decide(facts: &MirrorFacts<'_>, params: &MirrorParams) -> Result<(), NotMirrored> {
    if facts.upgrade {
        return Err(NotMirrored::Upgrade);
    }
    if !facts.method.is_safe() && !params.unsafe_methods {
        return Err(NotMirrored::UnsafeMethod);
    }
    // 53 bits: a share of 1 is always above.
    if ((facts.random >> 11) as f64 / (1_u64 << 53) as f64) >= params.share {
        return Err(NotMirrored::NotSampled);
    }
    if facts.length.is_some_and(|length| length > params.max_body) {
        return Err(NotMirrored::BodyTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied() {
        let params = MirrorParams { share: 0.5, unsafe_methods: false, max_in_flight: 1, max_body: 10 };
        let all = MirrorParams { unsafe_methods: true, share: 1.0, ..params };
        let get = MirrorFacts { method: &Method::GET, upgrade: false, length: Some(0), random: 0 };
        let post = MirrorFacts { method: &Method::POST, length: Some(10), ..get };
        let table = [
            ("safe", get, &params, Ok(())),
            ("upgrade", MirrorFacts { upgrade: true, ..get }, &all, Err(NotMirrored::Upgrade)),
            ("unsafe", post, &params, Err(NotMirrored::UnsafeMethod)),
            ("unsafe, asked for", post, &all, Ok(())),
            ("too long", MirrorFacts { length: Some(11), ..post }, &all, Err(NotMirrored::BodyTooLarge)),
            ("of unknown length", MirrorFacts { length: None, ..post }, &all, Ok(())),
            ("out of the share", MirrorFacts { random: 1 << 63, ..get }, &params, Err(NotMirrored::NotSampled)),
            ("in the share", MirrorFacts { random: (1 << 63) - 1, ..get }, &params, Ok(())),
            ("all of them", MirrorFacts { random: u64::MAX, ..get }, &all, Ok(())),
            ("none", get, &MirrorParams { share: 0.0, ..all.clone() }, Err(NotMirrored::NotSampled)),
        ];
        for (what, facts, params, expected) in table {
            assert_eq!(decide(&facts, params), expected, "{what}");
        }
    }
}
