//! Every case under `fixtures/config/`, and the files in `config/`.
//!
//! A case is `NAME.toml`, or a folder `NAME/` with a `tidegate.toml` and what it includes. `NAME.expected` holds what is
//! said about it: the faults for `invalid/`, warnings and summary for `valid/`. `UPDATE_GOLDEN=1` writes it anew.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read fails the test")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::config::model::{AccessFormat, RouteAction, TemplatePart};
use tidegate::config::{self, Config, Diagnostic, Files, Outcome, summary};
use tidegate::policy::balance::hash::HashBy;
use tidegate::policy::health::ProbeKind;
use tidegate::policy::mirror::MirrorParams;
use tidegate::policy::pool::{KeepAlive, PoolTimeouts, RouteTimeouts};
use tidegate::policy::retry::RetryParams;
use tidegate::policy::rewrite::ElementAction;

/// A folder as the whole world, with a few environment variables.
struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(path))
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let found = glob::glob(&self.0.join(pattern).to_string_lossy()).map_err(|error| error.msg.to_owned())?;
        Ok(found.flatten().map(|path| path.strip_prefix(&self.0).unwrap().to_owned()).collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "ORIGIN" => Some("10.0.0.9:80".to_owned()),
            "XDG_STATE_HOME" => Some("/state".to_owned()),
            _ => None,
        }
    }
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn load(case: &Path) -> Outcome {
    if case.is_dir() {
        return config::load("tidegate.toml".as_ref(), &Folder(case.to_owned()));
    }
    let name = Path::new(case.file_name().unwrap());
    config::load(name, &Folder(case.parent().unwrap().to_owned()))
}

/// Compares `said` with the file `golden`, or rewrites it.
fn check_golden(golden: &Path, said: &str, failures: &mut Vec<String>) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, said).unwrap();
    }
    let expected = fs::read_to_string(golden).unwrap_or_default();
    if expected != said {
        failures.push(format!("== {}\n-- expected\n{expected}-- said\n{said}", golden.display()));
    }
}

/// Runs all cases of a folder; `say` turns an outcome into what is compared.
fn check_cases(folder: &str, at_least: usize, say: impl Fn(&Outcome) -> String) {
    let folder = project(folder);
    let is_case = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "toml") || path.join("tidegate.toml").is_file()
    };
    let cases: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_case).collect();
    assert!(cases.len() >= at_least, "only {} cases in {}", cases.len(), folder.display());
    let mut failures = Vec::new();
    for case in &cases {
        check_golden(&case.with_extension("expected"), &say(&load(case)), &mut failures);
    }
    failures.sort();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_invalid_case_is_refused_with_all_its_faults() {
    check_cases("fixtures/config/invalid", 40, |outcome| {
        let errors = outcome.config.as_ref().err().map(ToString::to_string);
        errors.unwrap_or_else(|| "accepted\n".to_owned())
    });
}

#[test]
fn every_valid_case_is_accepted() {
    check_cases("fixtures/config/valid", 5, |outcome| {
        let config = outcome.config.as_ref().map_err(|errors| format!("refused\n{errors}"));
        config.map_or_else(|errors| errors, |config| format!("{}{}", outcome.warnings, summary::text(config)))
    });
}

#[test]
fn the_shipped_configuration_is_valid_without_a_warning() {
    let outcome = config::load("config/tidegate.toml".as_ref(), &Folder(project("")));
    assert_eq!(outcome.warnings.to_string(), "");
    let config = outcome.config.unwrap_or_else(|errors| panic!("{errors}"));
    let addresses: Vec<String> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:8443", "127.0.0.1:8080"]);
    assert_eq!(config.demo.unwrap().origins, 3);
}

#[test]
fn the_shipped_schema_is_the_language() {
    let mut failures = Vec::new();
    let schema = serde_json::to_string_pretty(&config::schema()).unwrap() + "\n";
    check_golden(&project("config/schema.json"), &schema, &mut failures);
    assert!(failures.is_empty(), "config/schema.json is stale: run the tests with UPDATE_GOLDEN=1");
}

/// One file as the whole world.
struct Alone(String);

impl Files for Alone {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new("a.toml") { Ok(self.0.clone().into_bytes()) } else { Ok(b"contents".to_vec()) }
    }

    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// The first fault of a text; a refusal must have one that can be shown.
fn first_fault(text: String) -> Option<String> {
    let errors = config::load("a.toml".as_ref(), &Alone(text)).config.err()?.to_string();
    assert!(errors.starts_with("a.toml:"), "{errors}");
    Some(errors.lines().next().unwrap().to_owned())
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}{}", "{ a = ".repeat(100_000), "}".repeat(100_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
    ] {
        let fault = first_fault(text).unwrap();
        assert!(fault.contains("recurs"), "{fault}");
    }
}

proptest::proptest! {
    #[test]
    fn damaged_text_is_refused_or_accepted_but_never_breaks(
        edits in proptest::collection::vec((0..4000_usize, 0..12_usize, "[\\PC\n]{0,6}|[0-9\"'\\[\\]{}=.,$~*/-]{0,4}"), 1..8)
    ) {
        let mut text: Vec<char> = include_str!("../../fixtures/config/valid/everything.toml").chars().collect();
        for (start, length, replacement) in edits {
            let start = start.min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, replacement.chars());
        }
        first_fault(text.into_iter().collect());
    }
}

fn accepted(case: &str) -> Config {
    load(&project(case)).config.unwrap_or_else(|errors| panic!("{errors}"))
}

fn watched(case: &str) -> Vec<String> {
    load(&project(case)).watched.iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn what_is_not_written_has_the_defaults_that_policies_name() {
    let config = accepted("fixtures/config/valid/minimal.toml");
    let pool = &config.pools[0].params;
    assert_eq!(pool.timeouts, PoolTimeouts::default());
    assert_eq!(pool.keep_alive, KeepAlive::default());
    assert_eq!(pool.retry, RetryParams::default());
    assert_eq!((pool.panic, pool.endpoints[0].weight), (0.5, 1));
    let listener = &config.listeners[0];
    assert_eq!((listener.limits.header_bytes, listener.limits.headers, listener.limits.uri), (32 << 10, 100, 8 << 10));
    assert_eq!((listener.timeouts.headers.as_secs(), listener.timeouts.idle.as_secs()), (10, 60));
    assert!(listener.h2 && listener.http1);
}

#[test]
fn what_is_written_arrives() {
    let config = accepted("fixtures/config/valid/everything.toml");
    assert_eq!(config.admin.token.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(config.errors[&503].content_type, "text/html; charset=utf-8");
    let RouteAction::Forward(split) = &config.routes[0].action else { panic!("{:?}", config.routes[0].action) };
    assert_eq!(split.pools, [(0, 95), (1, 5)]);
    assert_eq!(split.split_by, Some(HashBy::Cookie("session".into())));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let timeouts =
        RouteTimeouts { connect: seconds(1), first_byte: seconds(2), idle: seconds(3), total: Some(Duration::ZERO) };
    assert_eq!(split.timeouts, Some(timeouts));
    let mirror = split.mirror.as_ref().map(|mirror| (mirror.pool, mirror.params.clone()));
    let params = MirrorParams { share: 0.1, unsafe_methods: true, max_in_flight: 10, max_body: 1024 };
    assert_eq!(mirror, Some((2, params)));
    assert_eq!((split.buffer_request, split.buffer_response), (Some(64 << 10), Some(1 << 20)));
    let expected = ProbeKind::Http {
        path: "/healthz".to_owned(),
        expect: vec![200..=200, 204..=204, 301..=302],
        expect_body: Some("ready".to_owned()),
    };
    assert_eq!(config.pools[0].params.health.as_ref().unwrap().kind, expected);
    let text = |text: &str| TemplatePart::Text(text.to_owned());
    let field = |name: &str| TemplatePart::Field(name.to_owned());
    let template = [text("{"), field("client"), text("} "), field("req.user-agent"), text(" "), field("status")];
    assert_eq!(config.log.access.unwrap().format, AccessFormat::Template(template.to_vec()));
}

#[test]
fn actions_of_a_rule_keep_the_order_of_the_file() {
    let config = accepted("fixtures/config/valid/everything.toml");
    let text = |text: &str| text.to_owned();
    assert_eq!(
        config.rewrites[0].params.elements[3].actions,
        [
            ElementAction::Inner(text("Shop")),
            ElementAction::Set { name: text("lang"), value: text("en") },
            ElementAction::Unset(text("dir")),
        ]
    );
}

#[test]
fn every_named_file_and_include_folder_is_watched_even_when_there_are_faults() {
    assert_eq!(
        watched("fixtures/config/valid/split_over_files"),
        [
            "absent",
            "conf.d",
            "conf.d/../tls/ca.pem",
            "conf.d/../tls/gate.key",
            "conf.d/../tls/gate.pem",
            "conf.d/10-server.toml",
            "conf.d/20-pools.toml",
            "tidegate.toml",
        ]
    );
    let unreadable = watched("fixtures/config/invalid/tls_files_unreadable.toml");
    for file in ["tls/missing.pem", "tls/missing.key", "tls/nobody.pem", "tls/farm.pem"] {
        assert!(unreadable.iter().any(|path| path == file), "{file} in {unreadable:?}");
    }
    assert_eq!(watched("fixtures/config/invalid/absent.toml"), ["absent.toml", "conf.d"]);
}

#[test]
fn a_fault_found_later_is_shown_where_the_value_stands() {
    let config = accepted("fixtures/config/valid/everything.toml");
    let at = &config.listeners[0].tls.as_ref().unwrap().certificates[0].key_at;
    let fault = Diagnostic::at(at, "the key does not fit the certificate", "make a new pair");
    let json = fault.to_json();
    let text = fs::read_to_string(project("fixtures/config/valid/everything.toml")).unwrap();
    let value = "\"everything/site.key\"";
    let (line, column) =
        text.lines().zip(1..).find_map(|(line, number)| Some((number, line.find(value)? + 1))).unwrap();
    assert_eq!(
        (&json["file"], &json["line"], &json["column"]),
        (&"everything.toml".into(), &line.into(), &column.into())
    );
    assert!(fault.to_string().contains(&format!(" {}\n", "^".repeat(value.len()))), "{fault}");
}

#[test]
fn a_pool_that_moved_within_its_file_is_the_same() {
    let minimal = accepted("fixtures/config/valid/minimal.toml");
    let unused = accepted("fixtures/config/valid/no_change.toml");
    assert_eq!(minimal.pools[0], unused.pools[0]);
}
