//! Whose word about caching counts: fields addressed to this cache go before `Cache-Control` and `Expires` (RFC 9213).
//!
//! In order: `Tidegate-Cache-Control` and `CDN-Cache-Control` (structured dictionaries; one that is empty or malformed is
//! as good as absent, §2.1), then what older origins say: `Surrogate-Control` (W3C Edge Architecture) and nginx's
//! `X-Accel-Expires`. The first that says anything decides alone, but for `X-Accel-Expires`, which sets a lifetime only:
//! `no-store` and `private` beside it still hold.
//!
//! Ours, `Surrogate-Control` and `X-Accel-Expires` are meant for this hop and go no further ([`remove`]);
//! `CDN-Cache-Control` is for caches nearer the client as well.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};

use super::ResponseFacts;
use super::directives::{MAX_DELTA, ResponseDirectives};
use super::freshness::made;
use super::structured::{self, Item};
use crate::policy::fields;

/// The target list of RFC 9213 §2.2.
static TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("tidegate-cache-control"), HeaderName::from_static("cdn-cache-control")];
static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
static X_ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

/// The name by which a `Surrogate-Control` directive addresses this cache alone.
const DEVICE: &str = "tidegate";

/// The directives that count for a response, and whether `Expires` counts beside them: not where a targeted field spoke.
/// Cost where there is none of those fields: four map lookups more than `Cache-Control` alone.
#[must_use]
pub fn directives(response: &ResponseFacts<'_>) -> (ResponseDirectives, bool) {
    let headers = response.headers;
    let spoken = TARGETED.iter().find_map(|name| dictionary(headers, name)).or_else(|| surrogate(headers));
    if let Some(directives) = spoken {
        return (directives, false);
    }
    let directives = ResponseDirectives::parse(headers);
    let Some(lifetime) = x_accel_expires(response) else { return (directives, true) };
    let disabled = lifetime.is_zero();
    let no_store = directives.no_store || disabled;
    let lifetime =
        ResponseDirectives { no_store, no_cache: false, max_age: Some(lifetime), s_maxage: None, ..directives };
    (lifetime, false)
}

/// Takes the fields meant for this hop out of a response on its way to the client.
pub fn remove(headers: &mut HeaderMap) {
    let [own, ..] = &TARGETED;
    fields::remove_where(headers, |name| [own, &SURROGATE_CONTROL, &X_ACCEL_EXPIRES].contains(&name));
}

/// A targeted field; `None` when it is absent, empty or malformed.
fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let text = structured::text(headers, name)?;
    let mut found = ResponseDirectives::default();
    let mut said = false;
    structured::members(&text, |key, value| {
        said = true;
        let flag = !matches!(value, Item::Boolean(false));
        // A lifetime that is no number is none. Of several, the last counts, as in every structured dictionary.
        let delta = Some(match value {
            Item::Integer(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(MAX_DELTA),
            Item::Boolean(_) | Item::List(_) | Item::Other => Duration::ZERO,
        });
        match key {
            "no-store" => found.no_store = flag,
            "no-cache" => found.no_cache = flag,
            "no-transform" => found.no_transform = flag,
            "private" => found.private = flag,
            "public" => found.public = flag,
            "must-revalidate" => found.must_revalidate = flag,
            "proxy-revalidate" => found.proxy_revalidate = flag,
            "must-understand" => found.must_understand = flag,
            "max-age" => found.max_age = delta,
            "s-maxage" => found.s_maxage = delta,
            "stale-while-revalidate" => found.stale_while_revalidate = delta,
            "stale-if-error" => found.stale_if_error = delta,
            _ => {}
        }
    })?;
    said.then_some(found)
}

/// `Surrogate-Control`; `None` when it says nothing about storing. A directive that is addressed to another device is not
/// ours; `max-age=60+30` grants 60, as the extension is a matter of stale answers.
fn surrogate(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let mut found = ResponseDirectives::default();
    let mut said = false;
    let lines = headers.get_all(&SURROGATE_CONTROL).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    for line in lines {
        // `content="…"` holds no commas that matter: what is split off it is no directive.
        for member in line.split(',') {
            let (directive, device) = member.split_once(';').unwrap_or((member, ""));
            if !matches!(device.trim(), "" | DEVICE) {
                continue;
            }
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-store-remote" => (said, found.no_store) = (true, true),
                "max-age" => {
                    let digits = argument.split('+').next().unwrap_or_default();
                    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                    let lifetime = if valid { seconds(digits) } else { Duration::ZERO };
                    found.max_age = Some(found.max_age.map_or(lifetime, |before| before.min(lifetime)));
                    said = true;
                }
                _ => {}
            }
        }
    }
    said.then_some(found)
}

/// `X-Accel-Expires`: seconds, or `@` and seconds since the epoch; zero when that has passed. `None` when it is neither.
fn x_accel_expires(response: &ResponseFacts<'_>) -> Option<Duration> {
    let mut lines = response.headers.get_all(&X_ACCEL_EXPIRES).iter();
    let value = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?.trim();
    let digits = value.strip_prefix('@').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if digits.len() == value.len() {
        return Some(seconds(digits));
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(digits.parse().ok()?))?;
    Some(at.duration_since(made(response)).unwrap_or_default().min(MAX_DELTA))
}

/// Digits as seconds, saturating at [`MAX_DELTA`].
fn seconds(digits: &str) -> Duration {
    digits.parse().map_or(MAX_DELTA, |seconds| Duration::from_secs(seconds).min(MAX_DELTA))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::policy::cache::tests::headers;
    use http::StatusCode;

    /// `max-age`, `no-store`, and whether a targeted field spoke.
    fn check(lines: &[(&'static str, &str)]) -> (Option<u64>, bool, bool) {
        let now = Clock::System.now();
        let map = headers(lines, now);
        let (found, with_expires) =
            directives(&ResponseFacts { status: StatusCode::OK, headers: &map, sent: now, received: now });
        (found.max_age.map(|age| age.as_secs()), found.no_store, !with_expires)
    }

    #[test]
    fn the_nearest_word_counts() {
        let cc = ("cache-control", "max-age=1");
        for (line, expected) in [
            (("cdn-cache-control", "max-age=60"), (Some(60), false, true)),
            (("tidegate-cache-control", "max-age=60"), (Some(60), false, true)),
            (("cdn-cache-control", "no-store"), (None, true, true)),
            (("cdn-cache-control", "no-store=?0, max-age=5"), (Some(5), false, true)),
            (("cdn-cache-control", "max-age=60;x=1, foo=(a \"b\" 1.5);q, bar"), (Some(60), false, true)),
            (("cdn-cache-control", "max-age=5, max-age=60"), (Some(60), false, true)),
            (("cdn-cache-control", "max-age=-5"), (Some(0), false, true)),
            (("cdn-cache-control", "max-age=\"60\""), (Some(0), false, true)),
            (("cdn-cache-control", "max-age=99999999999"), (Some(1 << 31), false, true)),
            (("cdn-cache-control", "x=@1659578233, y=:aGk=:, z=%\"f\", max-age=6"), (Some(6), false, true)),
            (("cdn-cache-control", ""), (Some(1), false, false)),
            (("cdn-cache-control", "max-age=60,"), (Some(1), false, false)),
            (("cdn-cache-control", "max-age=60, &&&"), (Some(1), false, false)),
            (("cdn-cache-control", "max-age =60"), (Some(1), false, false)),
            (("cdn-cache-control", "Max-Age=60"), (Some(1), false, false)),
            (("cdn-cache-control", "max-age=1234567890123456"), (Some(1), false, false)),
            (("cdn-cache-control", "x=\"open, no-store"), (Some(1), false, false)),
            (("surrogate-control", "max-age=60+30, content=\"ESI/1.0\""), (Some(60), false, true)),
            (("surrogate-control", "max-age=60;other"), (Some(1), false, false)),
            (("surrogate-control", "max-age=60;tidegate"), (Some(60), false, true)),
            (("surrogate-control", "no-store-remote"), (None, true, true)),
            (("surrogate-control", "max-age=x"), (Some(0), false, true)),
            (("surrogate-control", "content=\"ESI/1.0\""), (Some(1), false, false)),
            (("x-accel-expires", "60"), (Some(60), false, true)),
            (("x-accel-expires", "0"), (Some(0), true, true)),
            (("x-accel-expires", " @1"), (Some(0), true, true)),
            (("x-accel-expires", "off"), (Some(1), false, false)),
        ] {
            assert_eq!(check(&[cc, line]), expected, "{line:?}");
        }
        let ours = ("tidegate-cache-control", "max-age=7");
        assert_eq!(check(&[("cdn-cache-control", "no-store"), ours]), (Some(7), false, true));
        assert_eq!(check(&[("surrogate-control", "no-store"), ours]), (Some(7), false, true));
        assert_eq!(check(&[("cache-control", "no-store"), ("x-accel-expires", "60")]), (Some(60), true, true));
    }

    #[test]
    fn what_is_ours_goes_no_further() {
        let mut map = headers(
            &[
                ("tidegate-cache-control", "x"),
                ("cdn-cache-control", "x"),
                ("surrogate-control", "x"),
                ("x-accel-expires", "x"),
                ("cache-control", "x"),
            ],
            Clock::System.now(),
        );
        remove(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cache-control", "cdn-cache-control"]);
    }
}
