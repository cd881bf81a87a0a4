//! What a configuration serves, in words and for programs: what `tidegate check` prints.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::model::{
    Config, ListenerConfig, LogTarget, PoolConfig, RedirectToHttps, RouteAction, RouteConfig, TlsConfig,
};
use super::units::{show_duration, show_size};
use crate::policy::balance::AdminState;
use crate::policy::health::ProbeKind;
use crate::policy::pool::EndpointParams;
use crate::policy::route::{Condition, HostPattern, PathPattern};

/// A few lines for each section: listeners, pools, policies, routes in file order, and where state and logs go.
#[must_use]
pub fn text(config: &Config) -> String {
    let mut out = String::new();
    section(&mut out, "listeners", config.listeners.iter().map(|l| vec![l.name.clone(), url(l), manner(l)]));
    section(&mut out, "pools", config.pools.iter().map(pool_row));
    section(&mut out, "policies", policy_rows(config).into_iter());
    section(&mut out, "routes", config.routes.iter().map(|route| route_row(config, route)));
    section(&mut out, "process", process_rows(config).into_iter());
    out
}

/// The same for programs: `{listeners, pools, caches, rewrites, compressions, routes, admin, store, demo}`.
#[must_use]
pub fn json(config: &Config) -> Json {
    json!({
        "listeners": config.listeners.iter().map(|listener| json!({
            "name": listener.name,
            "address": listener.address.to_string(),
            "url": url(listener),
            "redirects": listener.redirect_to_https.is_some(),
        })).collect::<Vec<_>>(),
        "pools": config.pools.iter().map(pool_json).collect::<Vec<_>>(),
        "caches": config.caches.iter().map(|cache| &cache.name).collect::<Vec<_>>(),
        "rewrites": config.rewrites.iter().map(|rewrite| &rewrite.name).collect::<Vec<_>>(),
        "compressions": config.compressions.iter().map(|compress| &compress.name).collect::<Vec<_>>(),
        "routes": config.routes.iter().map(|route| json!({
            "name": route.matching.name,
            "match": pattern(route),
            "action": action(config, &route.action),
            "cache": name(&config.caches, route.cache, |cache| &cache.name),
            "rewrite": name(&config.rewrites, route.rewrite, |rewrite| &rewrite.name),
            "compress": name(&config.compressions, route.compress, |compress| &compress.name),
        })).collect::<Vec<_>>(),
        "admin": config.admin.address.to_string(),
        "store": config.store.size,
        "demo": config.demo.as_ref().map_or(0, |demo| demo.origins),
    })
}

/// A title and rows in aligned columns; nothing when there are no rows. A cell longer than most pushes the rest of its row
/// aside instead of all rows.
fn section(out: &mut String, title: &str, rows: impl Iterator<Item = Vec<String>>) {
    /// Columns are at most this wide.
    const ALIGNED: usize = 40;
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .filter(|width| *width <= ALIGNED)
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    out.push_str(title);
    out.push('\n');
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
    }
}

fn url(listener: &ListenerConfig) -> String {
    format!("{}://{}", if listener.tls.is_some() { "https" } else { "http" }, listener.address)
}

/// What a listener does with what comes in.
fn manner(listener: &ListenerConfig) -> String {
    let mut words = Vec::new();
    match &listener.redirect_to_https {
        Some(RedirectToHttps::Port(port)) => words.push(format!("redirects to https on port {port}")),
        Some(RedirectToHttps::Base(base)) => words.push(format!("redirects to {base}")),
        None => words.extend(
            listener.h2.then(|| "h2".to_owned()).into_iter().chain(listener.http1.then(|| "http/1.1".to_owned())),
        ),
    }
    words.extend(listener.tls.iter().map(tls));
    words.extend(listener.proxy_protocol.is_some().then(|| "PROXY protocol".to_owned()));
    words.join(", ")
}

fn tls(tls: &TlsConfig) -> String {
    let mut words = match tls.self_signed.as_slice() {
        [] => format!("{} certificate(s)", tls.certificates.len()),
        names => format!("self-signed for {}", names.join(" ")),
    };
    if let Some(auth) = &tls.client_auth {
        words.push_str(if auth.required { ", client certificate required" } else { ", client certificate requested" });
    }
    words
}

fn pool_row(pool: &PoolConfig) -> Vec<String> {
    let params = &pool.params;
    let found = params.discover.iter().map(|discover| format!("those of {}", discover.source));
    let endpoints = params.endpoints.iter().map(endpoint).chain(found).collect::<Vec<_>>().join(", ");
    let probes = params.health.as_ref().map_or_else(
        || "no probes".to_owned(),
        |health| {
            let asked = match &health.kind {
                ProbeKind::Tcp => "tcp",
                ProbeKind::Http { path, .. } => path,
                ProbeKind::Grpc { .. } => "grpc",
            };
            format!("probes {asked} every {}", show_duration(health.interval))
        },
    );
    let encrypted = if pool.tls.is_some() { ", TLS" } else { "" };
    vec![params.name.clone(), format!("{}, {probes}{encrypted}", params.balance.token()), endpoints]
}

fn pool_json(pool: &PoolConfig) -> Json {
    json!({
        "name": pool.params.name,
        "balance": pool.params.balance.token(),
        "tls": pool.tls.is_some(),
        "discover": pool.params.discover.as_ref().map(|discover| discover.source.to_string()),
        "endpoints": pool.params.endpoints.iter().map(|endpoint| json!({
            "address": endpoint.address.to_string(),
            "weight": endpoint.weight,
            "max_connections": endpoint.max_connections,
            "backup": endpoint.tier > 0,
            "state": endpoint.state.token(),
        })).collect::<Vec<_>>(),
    })
}

fn endpoint(endpoint: &EndpointParams) -> String {
    let backup = if endpoint.tier > 0 { " backup" } else { "" };
    let state = if endpoint.state == AdminState::Up { "" } else { endpoint.state.token() };
    format!("{} x{}{backup} {state}", endpoint.address, endpoint.weight).trim_end().to_owned()
}

fn policy_rows(config: &Config) -> Vec<Vec<String>> {
    let caches = config.caches.iter().map(|cache| {
        let share = cache.max_bytes.map_or_else(|| "the whole store".to_owned(), show_size);
        vec![
            "cache".to_owned(),
            cache.name.clone(),
            format!("{share}, objects up to {}", show_size(cache.params.max_object)),
        ]
    });
    let rewrites = config.rewrites.iter().map(|rewrite| {
        vec!["rewrite".to_owned(), rewrite.name.clone(), format!("{} element rule(s)", rewrite.params.elements.len())]
    });
    let compressions = config.compressions.iter().map(|compress| {
        let codings = compress.params.codings.iter().map(|coding| format!("{coding:?}").to_lowercase());
        vec!["compress".to_owned(), compress.name.clone(), codings.collect::<Vec<_>>().join(" ")]
    });
    caches.chain(rewrites).chain(compressions).collect()
}

fn route_row(config: &Config, route: &RouteConfig) -> Vec<String> {
    let policies = [
        ("cache", name(&config.caches, route.cache, |cache| &cache.name)),
        ("rewrite", name(&config.rewrites, route.rewrite, |rewrite| &rewrite.name)),
        ("compress", name(&config.compressions, route.compress, |compress| &compress.name)),
    ];
    let policies = policies.iter().filter_map(|(kind, name)| name.map(|name| format!("{kind} {name}")));
    vec![
        route.matching.name.clone(),
        pattern(route),
        format!("-> {}", action(config, &route.action)),
        policies.collect::<Vec<_>>().join(", "),
    ]
}

/// Name of the entry at `index`.
pub(crate) fn name<T>(entries: &[T], index: Option<usize>, name: fn(&T) -> &str) -> Option<&str> {
    index.and_then(|index| entries.get(index)).map(name)
}

/// What a route matches on, in the words of its keys.
pub(crate) fn pattern(route: &RouteConfig) -> String {
    let matching = &route.matching;
    let hosts = matching.hosts.iter().map(|host| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Wildcard(below) => format!("*{below}"),
    });
    let path = match &matching.path {
        PathPattern::Any => "/".to_owned(),
        PathPattern::Exact(path) => format!("= {path}"),
        PathPattern::Prefix(prefix) => format!("{prefix}/"),
        PathPattern::Regex(regex) => format!("~ {regex}"),
    };
    let conditions = matching.when.iter().map(|condition| match condition {
        Condition::Header(name, _) => format!("header {name}"),
        Condition::Query(name, _) => format!("query {name}"),
        Condition::Cookie(name, _) => format!("cookie {name}"),
        Condition::Client(networks) => format!("client in {} network(s)", networks.len()),
    });
    let parts = [
        matching.listeners.as_ref().map(|names| format!("on {}", names.join(" "))),
        (!matching.methods.is_empty())
            .then(|| matching.methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        (!matching.hosts.is_empty()).then(|| hosts.collect::<Vec<_>>().join(" ")),
        Some(path),
        (!matching.when.is_empty()).then(|| format!("when {}", conditions.collect::<Vec<_>>().join(" and "))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

pub(crate) fn action(config: &Config, action: &RouteAction) -> String {
    match action {
        RouteAction::Forward(forward) => {
            let named = |index: usize| name(&config.pools, Some(index), |pool| &pool.params.name).unwrap_or_default();
            let pools = match forward.pools.as_slice() {
                [(pool, _)] => format!("pool {}", named(*pool)),
                split => {
                    let shares = split.iter().map(|(pool, weight)| format!("{} x{weight}", named(*pool)));
                    format!("pools {}", shares.collect::<Vec<_>>().join(", "))
                }
            };
            match &forward.mirror {
                Some(mirror) => format!("{pools}, mirrored to {}", named(mirror.pool)),
                None => pools,
            }
        }
        RouteAction::Redirect { to, status } => format!("{} {to}", status.as_u16()),
        RouteAction::Respond { status, body, .. } => format!("{} with {} bytes", status.as_u16(), body.len()),
    }
}

fn process_rows(config: &Config) -> Vec<Vec<String>> {
    let row = |key: &str, value: String| vec![key.to_owned(), value];
    let access = config.log.access.as_ref().map_or_else(
        || "off".to_owned(),
        |access| match &access.to {
            LogTarget::Stdout => "stdout".to_owned(),
            LogTarget::Stderr => "stderr".to_owned(),
            LogTarget::File(path) => path.display().to_string(),
        },
    );
    let mut rows = vec![
        row("workers", config.server.workers.map_or_else(|| "one per core".to_owned(), |count| count.to_string())),
        row("store", show_size(config.store.size)),
        row("state", config.server.state_dir.display().to_string()),
        row("admin", config.admin.address.to_string()),
        row("access log", access),
    ];
    rows.extend(config.demo.as_ref().map(|demo| {
        let origins = format!("{} on 127.0.0.1, from port {} up", demo.origins, demo.port);
        row("demo origins", origins)
    }));
    rows
}
