//! `tidegate route URL`: which route a request takes, and why the others do not.
//!
//! Decides with the functions that serve live requests (`policy::uri`, `policy::admission`, `policy::route`), on the
//! configuration as it stands in the files. Nothing is sent anywhere. Without `--listener` it is assumed that the request
//! comes by the first listener of the URL's scheme, one on the URL's port if there is one.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use serde_json::{Value as Json, json};

use super::{Failure, listed, load};
use crate::config::model::{Config, ListenerConfig, RouteConfig};
use crate::config::summary;
use crate::policy::admission::{AdmissionFacts, admit};
use crate::policy::route::{RouteFacts, RouteTable, Verdict};
use crate::policy::uri::{self, NormalUri};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is asked for, as http://HOST[:PORT]/PATH or https://...
    #[arg(value_parser = parse_url)]
    url: Uri,
    /// A request field; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The request method
    #[arg(long, default_value_t = Method::GET)]
    method: Method,
    /// The listener the request comes by
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The client's address
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err("must begin with http:// or https://".into()),
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("must be \"NAME: VALUE\"")?;
    let name = name.parse().map_err(|_| format!("{name:?} is no field name"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is no field value"))?;
    Ok((name, value))
}

/// What becomes of the request.
struct Finding<'a> {
    listener: &'a ListenerConfig,
    host: String,
    target: NormalUri,
    /// Every route with its verdict, in file order; empty when the listener redirects before any is asked.
    routes: Vec<(&'a RouteConfig, Verdict)>,
}

pub(super) fn run(arguments: &Arguments, main: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let config = load(main).map_err(|errors| Failure::Words(listed(&errors)))?;
    let finding = find(arguments, &config)?;
    if arguments.json {
        writeln!(out, "{:#}", finding.json(&config))?;
    } else {
        finding.write(&config, out)?;
    }
    if finding.listener.redirect_to_https.is_some() || finding.winner().is_some() { Ok(()) } else { Err(Failure::Told) }
}

fn find<'a>(arguments: &Arguments, config: &'a Config) -> Result<Finding<'a>, Failure> {
    let headers: HeaderMap = arguments.headers.iter().cloned().collect();
    let authority = match headers.get(HOST) {
        Some(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        None => arguments.url.authority().map(ToString::to_string).unwrap_or_default(),
    };
    let target = arguments.url.path_and_query().map_or_else(|| "/".into(), ToString::to_string);
    let target = uri::normalise(&Bytes::from(target)).map_err(|fault| refused(fault.token()))?;
    let authority = admit(&AdmissionFacts {
        method: &arguments.method,
        version: Version::HTTP_2,
        path: target.path(),
        authority: &authority,
        headers: &headers,
        upgrade: false,
    })
    .map_err(|kind| refused(kind.row().reason))?;

    let listener = listener(arguments, config)?;
    let redirects = listener.redirect_to_https.is_some();
    let table = RouteTable::build(config.routes.iter().map(|route| route.matching.clone()).collect());
    let facts = RouteFacts {
        listener: &listener.name,
        listener_redirects: redirects,
        host: authority.host(),
        path: target.path(),
        query: target.query(),
        method: &arguments.method,
        headers: &headers,
        client: arguments.client,
    };
    let verdicts = if redirects { Vec::new() } else { table.explain(&facts) };
    let routes = verdicts.into_iter().filter_map(|(index, verdict)| Some((config.routes.get(index)?, verdict)));
    Ok(Finding { listener, routes: routes.collect(), host: authority.host().into(), target })
}

fn refused(reason: &str) -> Failure {
    Failure::Words(format!("such a request is refused before any route is asked: {reason}"))
}

fn listener<'a>(arguments: &Arguments, config: &'a Config) -> Result<&'a ListenerConfig, Failure> {
    if let Some(name) = &arguments.listener {
        let named = config.listeners.iter().find(|listener| listener.name == *name);
        return named.ok_or_else(|| Failure::Words(format!("there is no listener {name:?}")));
    }
    let encrypted = arguments.url.scheme_str() == Some("https");
    let port = arguments.url.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let of_scheme = || config.listeners.iter().filter(|listener| listener.tls.is_some() == encrypted);
    let found = of_scheme().find(|listener| listener.address.port() == port).or_else(|| of_scheme().next());
    found.ok_or_else(|| Failure::Words(format!("no listener serves {}", if encrypted { "https" } else { "http" })))
}

impl<'a> Finding<'a> {
    fn winner(&self) -> Option<&'a RouteConfig> {
        self.routes.iter().find(|(_, verdict)| *verdict == Verdict::Won).map(|(route, _)| *route)
    }

    /// The target the origin would see, where the winner's `request` edits change it.
    fn sent_as(&self) -> Option<String> {
        let edited = self.winner()?.request.apply(&self.target);
        let sent = edited.map_or_else(|fault| format!("refused: {}", fault.token()), |uri| uri.as_str().into());
        (sent != self.target.as_str()).then_some(sent)
    }

    fn write(&self, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
        let mut row = |key: &str, value: &str| writeln!(out, "{key:<9} {value}");
        row("listener", &self.listener.name)?;
        row("host", &self.host)?;
        row("target", self.target.as_str())?;
        let Some(winner) = self.winner() else {
            let redirects = self.listener.redirect_to_https.is_some();
            row("route", if redirects { "none: the listener redirects to https" } else { "none: 404" })?;
            return self.write_verdicts(out);
        };
        row("route", &winner.matching.name)?;
        row("match", &summary::pattern(winner))?;
        row("action", &summary::action(config, &winner.action))?;
        if let Some(sent) = self.sent_as() {
            row("sent as", &sent)?;
        }
        for (kind, name) in policies(config, winner) {
            row(kind, name.unwrap_or("off"))?;
        }
        self.write_verdicts(out)
    }

    fn write_verdicts(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.routes.is_empty() {
            writeln!(out, "\nroutes")?;
        }
        let width = self.routes.iter().map(|(route, _)| route.matching.name.chars().count()).max().unwrap_or_default();
        for (route, verdict) in &self.routes {
            writeln!(out, "  {:<width$}  {verdict}", route.matching.name)?;
        }
        Ok(())
    }

    fn json(&self, config: &Config) -> Json {
        let routes = self.routes.iter().map(|(route, verdict)| {
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
            "host": self.host,
            "target": self.target.as_str(),
            "route": self.winner().map(|route| &route.matching.name),
            "action": self.winner().map(|route| summary::action(config, &route.action)),
            "sent_as": self.sent_as(),
            "routes": routes.collect::<Json>(),
        });
        if let (Some(object), Some(route)) = (json.as_object_mut(), self.winner()) {
            object.extend(policies(config, route).map(|(kind, name)| (kind.to_owned(), json!(name))));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Verb, parse};

    const CONFIG: &str = r#"
        [[listener]]
        name = "plain"
        address = "127.0.0.1:8080"
        redirect_to_https = 8443
        [[listener]]
        name = "open"
        address = "127.0.0.1:8081"
        [[listener]]
        name = "secure"
        address = "127.0.0.1:8443"
        tls = { self_signed = ["shop.example"] }
        [[pool]]
        name = "web"
        endpoints = [{ address = "127.0.0.1:9101" }]
        [cache.static]
        [[route]]
        name = "static"
        path = "/static/"
        pool = "web"
        cache = "static"
        request = { strip_prefix = "/static", add_prefix = "/v2" }
        [[route]]
        name = "beta"
        host = ["shop.example"]
        when = [{ header = "X-Beta", equals = "1" }]
        respond = { status = 204 }
        [[route]]
        name = "office"
        host = ["shop.example"]
        when = [{ client = ["10.0.0.0/8"] }]
        methods = ["GET"]
        pool = "web"
    "#;

    fn route(line: &str) -> (String, Result<(), Failure>) {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("tidegate.toml");
        std::fs::write(&main, CONFIG).unwrap();
        let words = ["tidegate", "route"].into_iter().chain(line.split_whitespace());
        let Some(Verb::Route(arguments)) = parse(words.map(Into::into)).unwrap().verb else { panic!("{line}") };
        let mut out = Vec::new();
        let done = run(&arguments, &main, &mut out);
        (String::from_utf8(out).unwrap(), done)
    }

    #[test]
    fn the_winner_and_the_losers_are_told() {
        let check = |line: &str, listener: &str, winner: Option<&str>, verdicts: &[&str]| {
            let (out, done) = route(&format!("{line} --json"));
            let json: Json = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{line}: {done:?}"));
            assert_eq!(json["listener"], listener, "{line}");
            assert_eq!(json["route"].as_str(), winner, "{line}");
            let tokens: Vec<_> = json["routes"].as_array().unwrap().iter().map(|route| &route["verdict"]).collect();
            assert_eq!(tokens, verdicts, "{line}");
            assert_eq!(done.is_ok(), winner.is_some() || json["redirects"] == true, "{line}: {done:?}");
        };
        let none = ["other_path", "condition_fails", "condition_fails"];
        check("https://x.example/static/a", "secure", Some("static"), &["won", "other_host", "other_host"]);
        check("https://x.example/stati%63", "secure", Some("static"), &["won", "other_host", "other_host"]);
        check("https://shop.example/", "secure", None, &none);
        check("https://shop.example/ -H X-Beta:1", "secure", Some("beta"), &["other_path", "won", "condition_fails"]);
        check(
            "https://shop.example/ --client 10.1.2.3",
            "secure",
            Some("office"),
            &["other_path", "condition_fails", "won"],
        );
        check(
            "https://shop.example/ --client 10.1.2.3 --method POST",
            "secure",
            None,
            &["other_path", "condition_fails", "other_method"],
        );
        check(
            "https://x.example/static/ -H Host:SHOP.example. -H X-Beta:1",
            "secure",
            Some("beta"),
            &["outranked_by_host", "won", "condition_fails"],
        );
        check("http://shop.example:8081/", "open", None, &none);
        check("http://shop.example/", "plain", None, &[]);
        check("http://shop.example/ --listener open", "open", None, &none);
    }

    #[test]
    fn the_text_shows_what_happens_to_the_request() {
        let (out, done) = route("https://shop.example/static/../static/x?q=1");
        assert!(done.is_ok());
        let expected = "\
listener  secure
host      shop.example
target    /static/x?q=1
route     static
match     /static/
action    pool web
sent as   /v2/x?q=1
cache     static
rewrite   off
compress  off

routes
  static  matches, and nothing more specific does
  beta    its condition 1 (`when`) does not hold
  office  its condition 1 (`when`) does not hold
";
        assert_eq!(out, expected);
        let (out, _) = route("http://shop.example/");
        assert!(out.ends_with("route     none: the listener redirects to https\n"), "{out}");
    }

    #[test]
    fn what_no_route_may_see_is_a_failure() {
        let check = |line: &str, reason: &str| match route(line).1 {
            Err(Failure::Words(words)) => assert!(words.contains(reason), "{line}: {words}"),
            other => panic!("{line}: {other:?}"),
        };
        check("https://shop.example/ --method TRACE", "method_refused");
        check("https://shop.example/ --listener nothing", "no listener");
        check("https://shop.example/%00", "refused");
    }
}
