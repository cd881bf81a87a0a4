//! The `Date` of responses that bring none (RFC 9110 §6.6.1), formatted once a second and thread.

use std::cell::RefCell;

use http::HeaderValue;

use crate::clock::Now;

thread_local! {
    static LATEST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The field value for `now`. Cost: a reference count, but once a second.
pub(super) fn field(now: Now) -> HeaderValue {
    let second = now.unix_seconds();
    LATEST.with_borrow_mut(|latest| match latest {
        Some((at, value)) if *at == second => value.clone(),
        _ => {
            let text = httpdate::fmt_http_date(now.wall);
            let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
            *latest = Some((second, value.clone()));
            value
        }
    })
}
