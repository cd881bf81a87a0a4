//! A signed request field by which an operator switches filters off for one request, to see what each of them does.
//!
//! ```text
//! Accel-Debug: <seconds>:<names>:<signature>
//! ```
//!
//! `seconds` of the Unix epoch until when it holds; `names` of filters joined by `+`, `rules` for all that is done in the stream (element rules,
//! links, filters that change pages), `*` for all of it, or nothing, to be told and change nothing; `signature` is HMAC-SHA-256 in hexadecimal, with the policy's key, over
//! `<host>:<seconds>:<names>`. Such a field can switch off, never on. Without the signature anybody could have other bytes
//! made, and cached by somebody, for any page.

use http::HeaderMap;
use http::HeaderName;

use super::filter::{Filter, Filters};
use crate::clock::Now;

/// The request field.
pub const ORDER: HeaderName = HeaderName::from_static("accel-debug");
/// The response field that names what each filter did.
pub const STATUS: HeaderName = HeaderName::from_static("accel-status");

/// The name of the element rules in an order, and in what is told.
pub const RULES: &str = "rules";

/// What a field orders, before its signature is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order<'a> {
    /// What is signed, besides the host.
    pub signed: &'a str,
    /// In hexadecimal.
    pub signature: &'a str,
    /// Which filters are off.
    pub off: Filters,
    /// The element rules are off.
    pub rules_off: bool,
}

/// Reads the field; `None` where there is none, where it is more than one, cannot be read, names what there is not, or holds
/// no more.
#[must_use]
pub fn read(headers: &HeaderMap, now: Now) -> Option<Order<'_>> {
    let mut fields = headers.get_all(&ORDER).iter();
    let (field, None) = (fields.next()?.to_str().ok()?, fields.next()) else { return None };
    let (signed, signature) = field.rsplit_once(':')?;
    let (until, names) = signed.split_once(':')?;
    if until.parse::<u64>().ok()? < now.unix_seconds() {
        return None;
    }
    let mut order = Order { signed, signature, off: Filters::default(), rules_off: false };
    for name in names.split('+').filter(|name| !name.is_empty()) {
        match name {
            "*" => order = Order { off: Filters::all(), rules_off: true, ..order },
            RULES => order.rules_off = true,
            name => order.off = order.off.with(Filter::from_token(name).filter(|filter| !filter.is_in_stream())?),
        }
    }
    Some(order)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn an_order_is_read_whole_or_not_at_all() {
        let now = Clock::System.now();
        let soon = now.unix_seconds() + 9;
        let off = |filters: &[Filter]| filters.iter().copied().fold(Filters::default(), Filters::with);
        for (text, expected) in [
            (format!("{soon}::ab"), Some((off(&[]), false))),
            (format!("{soon}:etag-own+immutable:ab"), Some((off(&[Filter::EtagOwn, Filter::Immutable]), false))),
            (format!("{soon}:rules:ab"), Some((off(&[]), true))),
            (format!("{soon}:*:ab"), Some((Filters::all(), true))),
            (format!("{soon}:etag-owned:ab"), None),
            (format!("{soon}:lazy:ab"), None),
            (format!("{}::ab", soon - 10), None),
            (format!("{soon}:ab"), None),
            ("soon::ab".to_owned(), None),
            (String::new(), None),
        ] {
            let mut headers = HeaderMap::from_iter([(ORDER, HeaderValue::try_from(&text).expect("a value"))]);
            let order = read(&headers, now);
            assert_eq!(order.map(|order| (order.off, order.rules_off)), expected, "{text}");
            assert!(order.is_none_or(|order| order.signature == "ab" && text.starts_with(order.signed)));
            headers.append(ORDER, HeaderValue::try_from(&text).expect("a value"));
            assert_eq!(read(&headers, now), None, "{text} twice");
        }
    }
}
