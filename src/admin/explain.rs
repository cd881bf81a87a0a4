//! `GET /explain`: what would become of a request, and why.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, http};
use serde::Serialize;

use super::routes::{Shared, refusal};
use crate::config::routing::{Asked, parse_header, parse_url};
use crate::observe::explanation::{Explanation, StoredNote};
use crate::observe::timestamp::rfc3339;

/// What would become of a request.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// The snapshot that would decide.
    pub generation: u64,
    /// What would happen now: that of `cache`, or what happens without one.
    pub next: &'static str,
    /// What `tidegate route` says, as data.
    pub routing: serde_json::Value,
    /// The same for people.
    #[serde(skip)]
    pub routing_text: String,
    /// Pools it may be forwarded to.
    pub pools: Vec<String>,
    /// What the cache would do; `None` where the route has none.
    pub cache: Option<Explanation>,
}

/// Answers `?url=URL`, and optionally `header=NAME: VALUE` (repeatable), `method`, `listener`, `client` and `format`.
pub(super) async fn explain(State(view): Shared, Query(query): Query<Vec<(String, String)>>) -> Response {
    let (asked, is_text) = match parse(&query) {
        Ok(parsed) => parsed,
        Err(words) => return refusal(StatusCode::BAD_REQUEST, &words),
    };
    match view.explain(&asked) {
        Ok(explained) if is_text => text(&explained).into_response(),
        Ok(explained) => Json(explained).into_response(),
        Err(words) => refusal(StatusCode::UNPROCESSABLE_ENTITY, &words),
    }
}

fn parse(query: &[(String, String)]) -> Result<(Asked, bool), String> {
    let mut asked = Asked {
        url: http::Uri::default(),
        headers: HeaderMap::new(),
        method: Method::GET,
        listener: None,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let (mut is_text, mut has_url) = (false, false);
    for (name, value) in query {
        match name.as_str() {
            "url" => (asked.url, has_url) = (parse_url(value).map_err(|words| format!("url: {words}"))?, true),
            "header" => {
                let (name, value) = parse_header(value).map_err(|words| format!("header: {words}"))?;
                asked.headers.append(name, value);
            }
            "method" => asked.method = value.parse().map_err(|_| format!("method: {value:?} is none"))?,
            "listener" => asked.listener = Some(value.clone()),
            "client" => asked.client = value.parse().map_err(|_| format!("client: {value:?} is no address"))?,
            "format" => is_text = value == "text",
            _ => return Err(format!("{name:?}: not known here")),
        }
    }
    if has_url { Ok((asked, is_text)) } else { Err("url: missing".into()) }
}

fn text(explained: &Explained) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(explained, &mut out);
    out
}

fn write(explained: &Explained, out: &mut String) -> fmt::Result {
    out.push_str(&explained.routing_text);
    writeln!(out, "\nnext      {}", explained.next)?;
    let Some(cache) = &explained.cache else { return Ok(()) };
    let mut row = |key: &str, value: Option<String>| match value {
        Some(value) => writeln!(out, "{key:<9} {value}"),
        None => Ok(()),
    };
    let told = |words: &str, token: Option<&'static str>| token.map(|token| format!("{words}{token}"));
    row("because", told("", cache.reason))?;
    row("", told("may not answer stale: ", cache.stale_refused))?;
    row("", told("never stored for this request: ", cache.reuse_only))?;
    row("fwd", told("", cache.fwd))?;
    row("joins", cache.joins.then(|| "a fetch that is under way".into()))?;
    row("key", cache.key.clone())?;
    row("fetches", (cache.fetches > 0).then(|| format!("{} under way", cache.fetches)))?;
    row(
        "refusal",
        cache.refusal.as_ref().map(|refusal| match refusal.alone_for {
            0 => format!("the last answer was not stored: {}", refusal.reason),
            seconds => {
                format!("the last answer was not stored: {}; requests go alone for {seconds} s more", refusal.reason)
            }
        }),
    )?;
    row(
        "again",
        cache.would_store.as_ref().map(|would| {
            let verdict = if would.stored { "stored, its lifetime by" } else { "not stored:" };
            format!("an answer like the stored one would be {verdict} {}", would.reason)
        }),
    )?;
    if cache.key.is_some() {
        writeln!(out, "\nstored    {} under this key", cache.stored.len())?;
    }
    cache.stored.iter().try_for_each(|stored| write_stored(stored, out))
}

fn write_stored(stored: &StoredNote, out: &mut String) -> fmt::Result {
    let mark = if stored.selected { '*' } else { ' ' };
    let StoredNote { status, state, age, ttl, lifetime, lifetime_by, hits, .. } = stored;
    writeln!(out, "{mark} {status} {state}, {age} s old, ttl {ttl} of {lifetime} s by {lifetime_by}, {hits} hits")?;
    let mut row = |key: &str, value: &str| writeln!(out, "    {key:<9} {value}");
    row("received", &rfc3339(stored.received))?;
    let fields = [
        ("type", &stored.content_type),
        ("coding", &stored.content_encoding),
        ("etag", &stored.etag),
        ("modified", &stored.last_modified),
    ];
    for (key, value) in fields {
        value.as_ref().map_or(Ok(()), |value| row(key, value))?;
    }
    let place = if stored.in_file { ", in a file of memory" } else { "" };
    row("size", &format!("{} bytes, {} in all{place}", stored.body, stored.bytes))?;
    let seconds = |name: &str, seconds: Option<u64>| seconds.map(|seconds| format!("{name} {seconds} s"));
    let word = |holds: bool, words: &str| holds.then(|| words.to_owned());
    let terms = [
        word(stored.must_revalidate, "must revalidate"),
        seconds("stale while revalidate", stored.stale_while_revalidate),
        seconds("stale if error", stored.stale_if_error),
        word(stored.refreshing, "being fetched anew"),
        word(stored.failing, "the last fetch failed"),
        word(!stored.rules_in_force, "rewritten by rules no longer in force"),
    ];
    let terms: Vec<_> = terms.into_iter().flatten().collect();
    if !terms.is_empty() {
        row("terms", &terms.join(", "))?;
    }
    for vary in &stored.vary {
        row("vary", &format!("{}: {}", vary.name, vary.value.as_deref().unwrap_or("(absent)")))?;
    }
    if !stored.tags.is_empty() {
        let more = stored.tags_total.saturating_sub(stored.tags.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        row("tags", &format!("{}{more}", stored.tags.join(" ")))?;
    }
    if let Some(dictionary) = &stored.dictionary {
        row("family", dictionary)?;
    }
    for child in &stored.children {
        row("child", &format!("{} level {}, {} bytes", child.coding.unwrap_or("uncoded"), child.level, child.body))?;
    }
    Ok(())
}
