//! Which route a request takes by a configuration, and why the others do not: what `tidegate route` prints, and the
//! beginning of what `tidegate explain` does.
//!
//! Decides with the functions that serve live requests (`policy::uri`, `policy::admission`, `policy::route`). Unless a
//! listener is named, it is assumed that the request comes by the first one of the URL's scheme, one on the URL's port if
//! there is one.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use serde_json::{Value as Json, json};

use super::model::{Config, ListenerConfig, RouteConfig};
use super::summary;
use crate::authority::Authority;
use crate::policy::admission::{AdmissionFacts, admit};
use crate::policy::route::{RouteFacts, RouteTable, Verdict};
use crate::policy::uri::{self, NormalUri};

/// A request somebody wants to know about.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Absolute, by http or https.
    pub url: Uri,
    /// The client's fields; `Host` goes before the URL's.
    pub headers: HeaderMap,
    /// The method.
    pub method: Method,
    /// The listener it comes by, where it is named.
    pub listener: Option<String>,
    /// The client's address.
    pub client: IpAddr,
}

/// Why nothing is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Such a request is refused before any route is asked, for this reason.
    Refused(&'static str),
    /// No listener has this name.
    NoListener(String),
    /// No listener speaks this scheme.
    NoScheme(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "such a request is refused before any route is asked: {reason}"),
            Self::NoListener(name) => write!(f, "there is no listener {name:?}"),
            Self::NoScheme(scheme) => write!(f, "no listener serves {scheme}"),
        }
    }
}

/// What becomes of the request.
#[derive(Debug)]
pub struct Finding<'a> {
    config: &'a Config,
    /// It comes by this one.
    pub listener: &'a ListenerConfig,
    /// Host and port, in their one form.
    pub authority: Authority,
    /// The target in its one form.
    pub target: NormalUri,
    /// Every route with its index and verdict, in file order; empty when the listener redirects before any is asked.
    pub routes: Vec<(usize, &'a RouteConfig, Verdict)>,
}

/// An absolute URL that a listener could be asked for.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err("must begin with http:// or https://".into()),
    }
}

/// A field as `NAME: VALUE`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("must be \"NAME: VALUE\"")?;
    let name = name.parse().map_err(|_| format!("{name:?} is no field name"))?;
    let value = HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| format!("{value:?} is no field value"))?;
    Ok((name, value))
}

/// The routes of a configuration, arranged for finding.
#[must_use]
pub fn table(config: &Config) -> RouteTable {
    RouteTable::build(config.routes.iter().map(|route| route.matching.clone()).collect())
}

/// Finds the way of `asked`; `port_of` says on which port a listener listens.
///
/// # Errors
/// A [`Fault`].
pub fn find<'a>(
    asked: &Asked,
    config: &'a Config,
    table: &RouteTable,
    port_of: impl Fn(&ListenerConfig) -> u16,
) -> Result<Finding<'a>, Fault> {
    let named = asked.url.authority().map_or("", http::uri::Authority::as_str);
    let authority = Authority::parse(asked.headers.get(HOST).map_or(named.as_bytes(), HeaderValue::as_bytes));
    let authority = authority.map_err(|fault| Fault::Refused(fault.token()))?;
    let target = asked.url.path_and_query().map_or_else(|| "/".into(), ToString::to_string);
    let target = uri::normalise(&Bytes::from(target)).map_err(|fault| Fault::Refused(fault.token()))?;
    admit(&AdmissionFacts {
        method: &asked.method,
        version: Version::HTTP_2,
        path: target.path(),
        headers: &asked.headers,
        upgrade: false,
    })
    .map_err(|kind| Fault::Refused(kind.row().reason))?;
    let listener = listener(asked, config, port_of)?;
    let redirects = listener.redirect_to_https.is_some();
    let facts = RouteFacts {
        listener: &listener.name,
        listener_redirects: redirects,
        host: authority.host(),
        path: target.path(),
        query: target.query(),
        method: &asked.method,
        headers: &asked.headers,
        client: asked.client,
    };
    let verdicts = if redirects { Vec::new() } else { table.explain(&facts) };
    let routes = verdicts.into_iter().filter_map(|(index, verdict)| Some((index, config.routes.get(index)?, verdict)));
    Ok(Finding { config, listener, routes: routes.collect(), authority, target })
}

fn listener<'a>(
    asked: &Asked,
    config: &'a Config,
    port_of: impl Fn(&ListenerConfig) -> u16,
) -> Result<&'a ListenerConfig, Fault> {
    if let Some(name) = &asked.listener {
        let named = config.listeners.iter().find(|listener| listener.name == *name);
        return named.ok_or_else(|| Fault::NoListener(name.clone()));
    }
    let encrypted = asked.url.scheme_str() == Some("https");
    let port = asked.url.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let of_scheme = || config.listeners.iter().filter(|listener| listener.tls.is_some() == encrypted);
    let found = of_scheme().find(|listener| port_of(listener) == port).or_else(|| of_scheme().next());
    found.ok_or(Fault::NoScheme(if encrypted { "https" } else { "http" }))
}

impl<'a> Finding<'a> {
    /// The route that wins, with its index.
    #[must_use]
    pub fn winner(&self) -> Option<(usize, &'a RouteConfig)> {
        let won = |(index, route, verdict): &(usize, &'a RouteConfig, Verdict)| {
            (*verdict == Verdict::Won).then_some((*index, *route))
        };
        self.routes.iter().find_map(won)
    }

    fn winning(&self) -> Option<&'a RouteConfig> {
        self.winner().map(|(_, route)| route)
    }

    /// The target the origin would see, where the winner's `request` edits change it.
    fn sent_as(&self) -> Option<String> {
        let edited = self.winning()?.request.apply(&self.target);
        let sent = edited.map_or_else(|fault| format!("refused: {}", fault.token()), |uri| uri.as_str().into());
        (sent != self.target.as_str()).then_some(sent)
    }

    /// For people: what matters of the way first, then a line for each route.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let mut row = |key: &str, value: &str| writeln!(out, "{key:<9} {value}");
        row("listener", &self.listener.name)?;
        row("host", self.authority.host())?;
        row("target", self.target.as_str())?;
        let Some(winner) = self.winning() else {
            let redirects = self.listener.redirect_to_https.is_some();
            row("route", if redirects { "none: the listener redirects to https" } else { "none: 404" })?;
            return self.write_verdicts(out);
        };
        row("route", &winner.matching.name)?;
        row("match", &summary::pattern(winner))?;
        row("action", &summary::action(self.config, &winner.action))?;
        if let Some(sent) = self.sent_as() {
            row("sent as", &sent)?;
        }
        for (kind, name) in policies(self.config, winner) {
            row(kind, name.unwrap_or("off"))?;
        }
        self.write_verdicts(out)
    }

    fn write_verdicts(&self, out: &mut String) -> fmt::Result {
        if !self.routes.is_empty() {
            writeln!(out, "\nroutes")?;
        }
        let width = self.routes.iter().map(|(_, route, _)| route.matching.name.chars().count()).max();
        let width = width.unwrap_or_default();
        for (_, route, verdict) in &self.routes {
            writeln!(out, "  {:<width$}  {verdict}", route.matching.name)?;
        }
        Ok(())
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let routes = self.routes.iter().map(|(_, route, verdict)| {
            json!({
                "name": route.matching.name,
                "match": summary::pattern(route),
                "verdict": verdict.token(),
                "why": verdict.to_string(),
            })
        });
        let mut json = json!({
            "listener": self.listener.name,
            "redirects": self.listener.redirect_to_https.is_some(),
            "host": self.authority.host(),
            "target": self.target.as_str(),
            "route": self.winning().map(|route| &route.matching.name),
            "action": self.winning().map(|route| summary::action(self.config, &route.action)),
            "sent_as": self.sent_as(),
            "routes": routes.collect::<Json>(),
        });
        if let (Some(object), Some(route)) = (json.as_object_mut(), self.winning()) {
            object.extend(policies(self.config, route).map(|(kind, name)| (kind.to_owned(), json!(name))));
        }
        json
    }
}

/// What else the route applies: each kind of policy with its name.
fn policies<'a>(config: &'a Config, route: &RouteConfig) -> [(&'static str, Option<&'a str>); 3] {
    [
        ("cache", summary::name(&config.caches, route.cache, |cache| &cache.name)),
        ("rewrite", summary::name(&config.rewrites, route.rewrite, |rewrite| &rewrite.name)),
        ("compress", summary::name(&config.compressions, route.compress, |compress| &compress.name)),
    ]
}
