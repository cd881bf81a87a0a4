//! `tidegate drain`: takes an endpoint out of the running process's hands, or puts it back.

use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::Failure;
use super::ask::Whom;

/// By default it drains: it finishes what it has, keeps its sticky sessions, and takes nothing new.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("word"))]
pub(super) struct Arguments {
    /// Pool and address as the configuration names them, such as web/10.0.0.11:8080
    #[arg(value_name = "POOL/ENDPOINT", value_parser = parse_endpoint)]
    endpoint: (String, String),
    /// Take nothing at all, sticky sessions included, and stop probing it
    #[arg(long, group = "word")]
    down: bool,
    /// Take traffic, whatever the configuration says
    #[arg(long, group = "word")]
    up: bool,
    /// Take the word back: the configuration's state counts again
    #[arg(long, group = "word")]
    clear: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

/// What `POST /endpoint` answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Verdict {
    Done { state: String, configured: String, in_flight: u32 },
    Refused { error: String },
}

fn parse_endpoint(text: &str) -> Result<(String, String), String> {
    // An address may have slashes in it, the name of a pool has none.
    match text.split_once('/') {
        Some((pool, endpoint)) if !pool.is_empty() && !endpoint.is_empty() => Ok((pool.into(), endpoint.into())),
        _ => Err("must be POOL/ENDPOINT".into()),
    }
}

pub(super) fn run(arguments: &Arguments, config: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = arguments.whom.tell(config, "/endpoint", &arguments.order())?;
    if arguments.json {
        return answer.print(out);
    }
    let (pool, endpoint) = &arguments.endpoint;
    match serde_json::from_str(&answer.body) {
        Ok(Verdict::Done { state, configured, in_flight }) => {
            let until = if arguments.clear { "" } else { ", until cleared" };
            let says = format!("{state} (configured: {configured}{until}), {in_flight} in flight");
            Ok(writeln!(out, "{pool}/{endpoint} is {says}")?)
        }
        Ok(Verdict::Refused { error }) => Err(answer.refusal(&error)),
        Err(_) => Err(answer.refusal(&answer.body)),
    }
}

impl Arguments {
    fn order(&self) -> String {
        let (pool, endpoint) = &self.endpoint;
        let state = match (self.down, self.up, self.clear) {
            (true, ..) => Some("down"),
            (_, true, _) => Some("up"),
            (.., true) => None,
            _ => Some("drain"),
        };
        json!({ "pool": pool, "endpoint": endpoint, "state": state }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::parse_endpoint;

    #[test]
    fn a_pool_has_no_slash_and_an_address_may() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = parse_endpoint(text).ok();
            assert_eq!(found, expected.map(|(pool, endpoint)| (pool.into(), endpoint.into())), "{text}");
        };
        check("web/10.0.0.1:80", Some(("web", "10.0.0.1:80")));
        check("web/unix:/run/app.sock", Some(("web", "unix:/run/app.sock")));
        check("web", None);
        check("/10.0.0.1:80", None);
        check("web/", None);
    }
}
