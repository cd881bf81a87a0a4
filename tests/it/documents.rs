//! What the documents say is tried here: the commands they show are run, the examples they give are valid, the files
//! they name exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::client::{Client, HOST, Request};
use crate::support::pki::{Pki, trusting_certificate};
use crate::support::tidegate::{Setup, Tidegate, program};
use crate::tidy::LAYERS;

/// A file of the project.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The code blocks of a document that are marked with `language`.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// The shipped configuration in a folder of its own, each `(file, from, to)` of `edits` carried out.
fn shipped(edits: &[(&str, &str, &str)]) -> Setup {
    let mut setup = Setup::new();
    for file in ["tidegate.toml", "conf.d/demo.toml"] {
        let mut text = read(&format!("config/{file}"));
        for (_, from, to) in edits.iter().filter(|(edited, ..)| *edited == file) {
            assert!(text.contains(from), "{file} says nothing of {from:?} any more");
            text = text.replace(from, to);
        }
        setup = setup.file(&format!("config/{file}"), text);
    }
    setup
}

/// Runs the shipped configuration: listeners on ports of the system's choosing, the demo origins and the admin listener
/// on some that nobody else has.
fn first_start() -> Tidegate {
    /// Starts that may find a port taken.
    const TRIES: u16 = 50;
    let first = u16::try_from(std::process::id() % 20_000).unwrap() + 10_000;
    for port in (first..).step_by(10).take(TRIES.into()) {
        let text = |offset: u16| format!("127.0.0.1:{}", port + offset);
        let found = shipped(&[
            ("tidegate.toml", "127.0.0.1:8443", "127.0.0.1:0"),
            ("tidegate.toml", "127.0.0.1:8080", "127.0.0.1:0"),
            ("tidegate.toml", "127.0.0.1:9180", &text(3)),
            ("tidegate.toml", "# port  = 9101", &format!("port = {port}")),
            ("conf.d/demo.toml", "127.0.0.1:9101", &text(0)),
            ("conf.d/demo.toml", "127.0.0.1:9102", &text(1)),
            ("conf.d/demo.toml", "127.0.0.1:9103", &text(2)),
        ])
        .try_start_file("config/tidegate.toml");
        match found {
            Ok(gate) => return gate,
            Err((_, words)) => assert!(words.contains("in use"), "{words}"),
        }
    }
    panic!("no free ports");
}

fn run(folder: &Path, arguments: &str) -> Output {
    program(folder).args(arguments.split_whitespace()).output().unwrap()
}

/// Runs `tidegate ARGUMENTS` and fails unless it says something and ends well.
fn expect_data(folder: &Path, arguments: &str) -> String {
    let output = run(folder, arguments);
    let (data, words) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && !data.is_empty() && words.is_empty(), "tidegate {arguments}: {data}{words}");
    data
}

/// The configuration in a folder must be valid, without a warning.
fn expect_valid(setup: &Setup, config: &str) {
    expect_data(setup.path(), &format!("-c {config} check"));
}

#[test]
fn the_first_start_serves_what_it_prints() {
    let gate = first_start();
    let [page, text, status] = ["  curl -ki ", "--compressed", "/status"].map(|part| gate.wait_words(part));
    let certificate = std::fs::read_to_string(gate.path(".tidegate/self-signed-localhost_127.0.0.1.pem")).unwrap();
    let trusting = trusting_certificate(&certificate);
    let https = || Client::connect_tls(gate.listener("https"), &trusting, "localhost").unwrap();
    let target = |line: &str| {
        let url = line.rsplit(' ').next().unwrap().trim_matches('\'');
        let (authority, path) = url.split_once("://").unwrap().1.split_once('/').unwrap();
        (authority.to_owned(), format!("/{path}"))
    };
    let authority = gate.listener("https").to_string();

    assert_eq!(target(&page), (authority.clone(), "/".to_owned()));
    let answer = https().get("/").expect(200);
    assert_eq!(answer.field("x-cache"), Some("MISS"));
    assert!(answer.text().contains("served-through"), "the element rule is on: {}", answer.text());
    assert_eq!(https().get("/").expect(200).field("x-cache"), Some("HIT"));

    let (at, tables) = target(&text);
    assert_eq!(at, authority);
    let plain = https().get(&tables).expect(200).body.len();
    let coded = https().ask(&Request::get(&tables).field("Accept-Encoding", "deflate, gzip, br, zstd")).expect(200);
    assert_eq!(coded.field("content-encoding"), Some("zstd"));
    assert!(coded.body.len() * 2 < plain, "{} of {plain}", coded.body.len());

    let (_, question) = target(&status);
    let words = gate.admin(&question).expect(200).text();
    assert!(words.contains("pool demo") && words.contains("generation 1"), "{words}");
}

#[test]
fn every_command_of_the_documents_works() {
    let gate = first_start();
    let folder = gate.path("");
    let readme = read("README.md");
    let shown = blocks(&readme, "sh").into_iter().flat_map(str::lines).map(str::to_owned);
    let config = read("config/tidegate.toml");
    let comments = config.lines().filter_map(|line| line.strip_prefix("#   tidegate")).map(|rest| {
        let arguments = rest.split("  ").next().unwrap();
        format!("tidegate{arguments}")
    });
    let mut verbs = BTreeSet::new();
    for line in shown.chain(comments) {
        let command = line.split(" #").next().unwrap().trim();
        match command.split_once(' ').unwrap_or((command, "")) {
            // What the tests of this file start and what runs them.
            ("", _) | ("tidegate", "") | ("cargo", "run --release" | "test") => {}
            ("tidegate", arguments) => {
                expect_data(&folder, arguments);
                verbs.extend(arguments.split_whitespace().next().map(str::to_owned));
            }
            (script, _) => assert!(root().join(script).is_file(), "{command}: not tried by any test"),
        }
    }
    assert!(
        verbs.iter().map(String::as_str).eq(["check", "explain", "purge", "reload", "route", "status"]),
        "{verbs:?}"
    );
    for verb in &verbs {
        let arguments = match verb.as_str() {
            "route" => "route http://a/",
            "explain" => "explain http://a/",
            "purge" => "purge http://a/",
            verb => verb,
        };
        let json = expect_data(&folder, &format!("{arguments} --json"));
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{verb}: {json}");
    }
    assert_eq!(run(&folder, "-c nowhere.toml check").status.code(), Some(1));
    assert_eq!(run(&folder, "no-such-verb").status.code(), Some(2));
}

#[test]
fn the_example_of_the_readme_is_valid() {
    let readme = read("README.md");
    let [example] = blocks(&readme, "toml")[..] else { panic!("one example") };
    let site = Pki::new().server(&[HOST]);
    let setup = Setup::new().file("tls/site.pem", &site.cert).file("tls/site.key", &site.key);
    expect_valid(&setup.file("tidegate.toml", example), "tidegate.toml");
}

#[test]
fn what_the_comments_offer_instead_is_valid_too() {
    let (main, demo) = ("tidegate.toml", "conf.d/demo.toml");
    let table: &[(&str, &str, &str)] = &[
        (main, "# state_dir", "state_dir"),
        (main, "# port ", "port "),
        (main, "# redirect_to_https", "redirect_to_https"),
        (main, "format = \"json\"", "format = \"combined\""),
        (main, "format = \"json\"", "format = \"{client} {status}\""),
        (main, "{ to = \"stdout\", format = \"json\" } ", "false "),
        (main, "level  = \"info\"", "level  = \"debug\""),
        (demo, "\"round-robin\"", "\"least-connections\""),
        (demo, "weight = 1 }", "weight = 1, state = \"drain\" }"),
    ];
    expect_valid(&shipped(&[]), "config/tidegate.toml");
    for edit in table {
        expect_valid(&shipped(&[*edit]), "config/tidegate.toml");
    }
    // The certificate's line stands in a comment above the one it replaces.
    let site = Pki::new().server(&[HOST]);
    let edits = [(main, "tls     = {", "# tls = {"), (main, "#   tls = { certificates", "tls = { certificates")];
    let setup = shipped(&edits).file("config/tls/site.pem", &site.cert).file("config/tls/site.key", &site.key);
    expect_valid(&setup, "config/tidegate.toml");
}

#[test]
fn every_link_leads_to_a_file() {
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(link.contains("://") || root().join(link).exists(), "{document}: {link}");
        }
    }
    assert!(read("CHANGELOG.md").contains("## Unreleased") || read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
}

/// The words in backticks of a cell.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('/').to_owned()).collect()
}

/// The rows of the table whose head begins with `| folder `.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let table =
        lines.skip_while(|line| !line.starts_with("| folder ")).skip(2).take_while(|line| line.starts_with('|'));
    table.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_folder_is_on_the_map() {
    let mapped: BTreeSet<String> = rows(&read("ARCHITECTURE.md")).iter().flat_map(|row| names(&row[0])).collect();
    let entries = std::fs::read_dir(root().join("src")).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.path().is_dir());
    let there: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(mapped, there);
}

#[test]
fn the_table_of_layers_is_the_one_that_is_enforced() {
    let mut told = BTreeSet::new();
    for row in rows(&read("src/lib.rs")).iter().filter(|row| row[1] != "everything") {
        told.extend(names(&row[0]).into_iter().map(|layer| (layer, names(&row[1]))));
    }
    let owned = |allowed: &[&str]| allowed.iter().map(|&name| name.to_owned()).collect();
    let enforced: BTreeSet<_> = LAYERS.iter().map(|(layer, allowed)| ((*layer).to_owned(), owned(allowed))).collect();
    assert_eq!(told, enforced);
}

#[test]
fn the_top_folder_holds_what_belongs_there() {
    const KNOWN: &[&str] = &[
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "config",
        "fixtures",
        "src",
        "target",
        "tests",
    ];
    for entry in std::fs::read_dir(root()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        assert!(name.starts_with('.') || KNOWN.contains(&name.as_str()), "{name} has no place at the top");
    }
}
