//! `tidegate check`: validates everything and prints what would be served.
//!
//! Goes as far as a start does short of touching anything: the files are read, a snapshot is built (certificates against
//! their keys, authorities, selectors, log fields) and thrown away. No socket is bound, nothing is written.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{Failure, listed};
use crate::app::privileges;
use crate::clock::Clock;
use crate::config::{self, Config, Diagnostic, Diagnostics, summary};
use crate::listener::tls::{TicketKeys, self_signed};
use crate::snapshot::Snapshot;
use crate::snapshot::build::{self, Parts};
use crate::snapshot::files::DiskFiles;
use crate::store::Store;
use crate::upstream::Farm;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON: what would be served, or every fault
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, main: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let config::Outcome { config, mut warnings, watched } = config::load(main, &DiskFiles::default());
    let verdict = match config {
        Ok(config) => rehearse(Arc::new(config))?,
        Err(errors) => Err(errors),
    };
    let verdict = verdict.map(|snapshot| {
        warnings.extend(snapshot.warnings.iter().cloned());
        warnings.extend(locked_out(&snapshot.config, &watched));
        snapshot.config
    });
    match verdict {
        Ok(config) if arguments.json => {
            let verdict = json!({ "ok": true, "warnings": faults(&warnings), "serves": summary::json(&config) });
            Ok(writeln!(out, "{verdict:#}")?)
        }
        Ok(config) => {
            super::warn(&warnings);
            Ok(write!(out, "{}", summary::text(&config))?)
        }
        Err(errors) if arguments.json => {
            let verdict = json!({ "ok": false, "warnings": faults(&warnings), "errors": faults(&errors) });
            writeln!(out, "{verdict:#}")?;
            Err(Failure::Told)
        }
        Err(errors) => {
            super::warn(&warnings);
            Err(Failure::Words(listed(&errors)))
        }
    }
}

/// Builds a snapshot that nobody will use: what is wrong with the configuration once things are put together.
fn rehearse(config: Arc<Config>) -> Result<Result<Snapshot, Diagnostics>, Failure> {
    let clock = Clock::System;
    let now = clock.now();
    let tickets = TicketKeys::generate(now).map_err(|error| Failure::Words(error.to_string()))?;
    let fresh = move |names: &[String]| {
        let made = self_signed(names, now).map_err(io::Error::other);
        made.map(|(chain, key)| (chain.into_bytes(), key.into_bytes()))
    };
    // Nobody will be given a session of it.
    let farm = Arc::new(Farm::new(&[]));
    let (store, findings) = (Store::new(config.store.size), Arc::default());
    let parts = Parts { store, tickets, farm, findings, self_signed: Box::new(fresh) };
    Ok(build::build(config, None, &parts, &clock))
}

/// A warning for each file that a reload will need and `server.user` cannot read, though whoever checks can.
fn locked_out(config: &Config, watched: &[PathBuf]) -> Vec<Diagnostic> {
    let Some(user) = &config.server.user else { return Vec::new() };
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let Some(found) = privileges::find(&passwd, &user.name) else {
        return vec![Diagnostic::warning(&user.at, format!("server.user: there is no user \"{}\"", user.name), "")];
    };
    let files = watched.iter().map(PathBuf::as_path);
    let locked = privileges::unreadable(found, files).into_iter().map(|(file, obstacle)| {
        let message = format!("server.user: \"{}\" cannot read {}, which a reload needs", user.name, file.display());
        let help = format!("mode and owner of {} forbid it", obstacle.display());
        Diagnostic::warning(&user.at, message, help)
    });
    locked.collect()
}

fn faults(diagnostics: &Diagnostics) -> Json {
    diagnostics.iter().map(config::Diagnostic::to_json).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FINE: &str = r#"
        [[listener]]
        name = "http"
        address = "127.0.0.1:8080"
        [[route]]
        respond = { status = 204 }
    "#;

    fn check(text: &str, json: bool) -> (String, Result<(), Failure>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let main = folder.path().join("tidegate.toml");
        std::fs::write(&main, text).unwrap();
        let mut out = Vec::new();
        let done = run(&Arguments { json }, &main, &mut out);
        (String::from_utf8(out).unwrap(), done)
    }

    #[test]
    fn a_valid_configuration_is_summed_up() {
        let (out, done) = check(FINE, false);
        assert!(done.is_ok() && out.contains("127.0.0.1:8080"), "{out}");
        let (out, done) = check(FINE, true);
        let json: Json = serde_json::from_str(&out).unwrap();
        assert!(done.is_ok());
        assert_eq!((&json["ok"], &json["serves"]["listeners"][0]["name"]), (&json!(true), &json!("http")));
    }

    #[test]
    fn every_fault_of_an_invalid_one_is_shown() {
        let bad = format!("{FINE}\n[store]\nsize = \"much\"\nshape = \"round\"\n");
        let (out, done) = check(&bad, false);
        assert_eq!(out, "", "words are not data");
        let Err(Failure::Words(words)) = done else { panic!("it failed with words: {done:?}") };
        assert!(words.contains("tidegate.toml:9:8: ") && words.contains("shape"), "{words}");
        let (out, done) = check(&bad, true);
        assert!(matches!(done, Err(Failure::Told)));
        let json: Json = serde_json::from_str(&out).unwrap();
        assert_eq!((&json["ok"], json["errors"].as_array().map(Vec::len)), (&json!(false), Some(2)));
    }

    #[test]
    fn what_only_shows_when_things_are_put_together_is_shown() {
        let bad = format!("{FINE}\n[log]\naccess = {{ to = \"stdout\", format = \"{{nonsense}}\" }}\n");
        let Err(Failure::Words(words)) = check(&bad, false).1 else { panic!("it failed with words") };
        assert!(words.contains("nonsense"), "{words}");
    }

    #[test]
    fn files_that_the_user_will_not_be_able_to_read_are_named() {
        // The folder is its owner's alone.
        let text = format!("[server]\nuser = \"nobody\"\n{FINE}");
        let (out, done) = check(&text, true);
        assert!(done.is_ok());
        let json: Json = serde_json::from_str(&out).unwrap();
        let message = json["warnings"][0]["message"].as_str().unwrap_or_default();
        assert!(message.contains("\"nobody\" cannot read") && message.contains("tidegate.toml"), "{out}");
        assert_eq!(json["warnings"][0]["line"], 2);
        let (out, _) = check(&text.replace("nobody", "no such user"), true);
        assert!(out.contains("there is no user"), "{out}");
    }

    #[test]
    fn a_missing_file_is_a_fault_not_a_crash() {
        let done = run(&Arguments { json: false }, Path::new("/nonexistent/tidegate.toml"), &mut Vec::new());
        let Err(Failure::Words(words)) = done else { panic!("it failed with words: {done:?}") };
        assert!(words.contains("/nonexistent/tidegate.toml"), "{words}");
    }
}
