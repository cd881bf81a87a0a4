//! `tidegate route URL`: which route a request takes, and why the others do not.
//!
//! Decides with the functions that serve live requests, on the configuration as it stands in the files. Nothing is sent
//! anywhere.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use http::{HeaderName, HeaderValue, Method, Uri};

use super::{Failure, listed, load};
use crate::config::routing::{self, Asked, Fault, Finding};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    request: Request,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The request that is asked about.
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// What is asked for, as http://HOST[:PORT]/PATH or https://...
    #[arg(value_parser = routing::parse_url)]
    pub(super) url: Uri,
    /// A request field; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = routing::parse_header)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The request method
    #[arg(short = 'X', long, default_value_t = Method::GET)]
    pub(super) method: Method,
    /// The listener the request comes by; else the first of the URL's scheme, one on its port if there is one
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
    /// The client's address
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(super) client: IpAddr,
}

pub(super) fn run(arguments: &Arguments, main: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let config = load(main).map_err(|errors| Failure::Words(listed(&errors)))?;
    let Request { url, headers, method, listener, client } = &arguments.request;
    let asked = Asked {
        url: url.clone(),
        headers: headers.iter().cloned().collect(),
        method: method.clone(),
        listener: listener.clone(),
        client: *client,
    };
    let table = routing::table(&config);
    let finding: Finding<'_> = routing::find(&asked, &config, &table, |listener| listener.address.port())
        .map_err(|fault: Fault| Failure::Words(fault.to_string()))?;
    if arguments.json {
        writeln!(out, "{:#}", finding.json())?;
    } else {
        write!(out, "{}", finding.text())?;
    }
    if finding.listener.redirect_to_https.is_some() || finding.winner().is_some() { Ok(()) } else { Err(Failure::Told) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Verb, parse};
    use serde_json::Value as Json;

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
