//! `POST /purge`: what is to go, as JSON.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::json;

use super::routes::{Shared, refusal};
use crate::policy::cache::purge::Target;

/// The body. Exactly one of the first five keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    /// Every variant of this URL.
    url: Option<String>,
    /// Everything under this URL, on whole segments.
    prefix: Option<String>,
    /// Everything of this host.
    host: Option<String>,
    /// Everything with any of these tags.
    tags: Option<Vec<String>>,
    /// Everything.
    all: bool,
    /// Not removed, but validated before it is used again.
    soft: bool,
    /// Only counted.
    dry_run: bool,
}

impl Order {
    fn target(&self) -> Result<Target, &'static str> {
        let Self { url, prefix, host, tags, all, .. } = self;
        match (url, prefix, host, tags, all) {
            (Some(url), None, None, None, false) => Target::url(url),
            (None, Some(prefix), None, None, false) => Target::prefix(prefix),
            (None, None, Some(host), None, false) => Target::host(host),
            (None, None, None, Some(tags), false) if !tags.is_empty() => {
                Ok(Target::Tags(tags.iter().map(|tag| tag.as_bytes().to_vec()).collect()))
            }
            (None, None, None, None, true) => Ok(Target::All),
            _ => Err("exactly_one_target"),
        }
    }
}

/// Carries an order out. A request that a browser sent from another site is refused.
pub(super) async fn purge(State(view): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "cross_site");
    }
    let Ok(order) = serde_json::from_slice::<Order>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "not_an_order");
    };
    let target = match order.target() {
        Ok(target) => target,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
    };
    let purged = view.purge(target, order.soft, order.dry_run).await;
    let sample = order.dry_run.then_some(&purged.sample);
    Json(json!({
        "purged": purged.responses,
        "bytes": purged.bytes,
        "arriving": purged.arriving,
        "soft": order.soft,
        "dry_run": order.dry_run,
        "keys": sample,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_one_target() {
        let check = |body: &str, expected: Result<&str, &str>| {
            let order: Option<Order> = serde_json::from_str(body).ok();
            let told = order.ok_or("not_an_order").and_then(|order| order.target());
            assert_eq!(told.as_ref().map(Target::kind), expected.as_ref().copied(), "{body}");
        };
        check(r#"{"url":"https://h/a"}"#, Ok("url"));
        check(r#"{"prefix":"https://h/a","soft":true}"#, Ok("prefix"));
        check(r#"{"host":"h"}"#, Ok("host"));
        check(r#"{"tags":["a","b"],"dry_run":true}"#, Ok("tag"));
        check(r#"{"all":true}"#, Ok("all"));
        check(r#"{}"#, Err("exactly_one_target"));
        check(r#"{"all":false}"#, Err("exactly_one_target"));
        check(r#"{"tags":[]}"#, Err("exactly_one_target"));
        check(r#"{"host":"h","all":true}"#, Err("exactly_one_target"));
        check(r#"{"url":"/a"}"#, Err("url_invalid"));
        check(r#"{"everything":true}"#, Err("not_an_order"));
        check("", Err("not_an_order"));
    }
}
