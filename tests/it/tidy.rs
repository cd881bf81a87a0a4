//! Reads the source and fails where it breaks a rule that the compiler does not know.
//!
//! The rules are few, so that each can be known by heart: who may use whom ([`LAYERS`]), what pure code must not
//! mention ([`PURE`]), where time is read, no sleeping in tests, and words that say nothing in names of files.
//! Comments, text and `#[cfg(test)]` code are not looked at: tests may reach across layers.

use std::fmt;
use std::path::Path;

/// What each module may use of ours, itself aside. The map that `ARCHITECTURE.md` draws cannot go stale through this.
/// Modules that are not listed (`app`, `cli`, `admin`, `main`, `lib`) compose the others and may use everything.
pub const LAYERS: &[(&str, &[&str])] = &[
    ("authority", &["error"]),
    ("clock", &[]),
    ("error", &[]),
    ("policy", &["authority", "clock", "error"]),
    ("transform", &["policy"]),
    ("config", &["policy", "authority"]),
    ("body", &["transform", "authority", "clock", "error"]),
    ("store", &["policy", "body", "clock", "error"]),
    ("upstream", &["policy", "body", "clock", "error"]),
    ("listener", &["body", "authority", "clock", "error"]),
    (
        "snapshot",
        &["config", "policy", "upstream", "store", "listener", "observe", "transform", "body", "clock", "error"],
    ),
    (
        "pipeline",
        &["snapshot", "upstream", "store", "body", "transform", "policy", "observe", "authority", "clock", "error"],
    ),
    ("observe", &["policy", "clock", "error"]),
];

/// Where decisions are made and bytes are changed. Without these words nothing there can wait, share, remember or look
/// at the world; a function that needs one of them belongs to the layer that calls it.
const PURE: &[(&str, &[&str])] = &[
    (
        "policy",
        &[
            "async",
            "await",
            "tokio",
            "hyper",
            "serde",
            "rand",
            "Mutex",
            "RwLock",
            "std::fs",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
        ],
    ),
    ("transform", &["async", "await", "tokio", "hyper", "Mutex", "RwLock", "std::fs", "TcpStream"]),
];

/// Readings of a clock, allowed in `clock.rs` alone: whoever decides by time is given it, so that a test can say what
/// time it is.
const CLOCK_READS: &[&str] = &["Instant::now", "SystemTime::now"];

/// A test that sleeps is slow where the machine is fast and fails where it is slow; it waits for an event instead.
const SLEEPS: &[&str] = &["thread::sleep", "time::sleep", "sleep_until"];

/// Names under which anything could be filed, so that nothing can be found.
const EMPTY_NAMES: &[&str] = &["manager", "helper", "helpers", "util", "utils", "common", "misc"];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

#[test]
fn the_source_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        gather(&root.join(folder), &mut files);
    }
    assert!(files.len() > 20, "the source was found");
    let mut faults = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let name = file.strip_prefix(root).unwrap().to_string_lossy();
        faults.extend(check_file(&name, &text));
    }
    let list: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

fn gather(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn check_file(name: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".rs");
    for word in stem.split('_').filter(|word| EMPTY_NAMES.contains(word)) {
        faults.push(Fault { file: name.into(), line: 1, what: format!("{word:?} in a file name says nothing") });
    }
    let code = blank_text(text);
    let mut ban = |code: &str, words: &[&str], why: &str| {
        for (line, word) in mentions(code, words) {
            faults.push(Fault { file: name.into(), line, what: format!("{word}: {why}") });
        }
    };
    if name.starts_with("tests/") {
        ban(&code, SLEEPS, "a test waits for an event with a bound");
    }
    let Some(inside) = name.strip_prefix("src/") else { return faults };
    let code = blank_tests(&code);
    let module = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    if module != "clock" {
        ban(&code, CLOCK_READS, "time is read in clock.rs");
    }
    if let Some((_, words)) = PURE.iter().find(|(pure, _)| *pure == module) {
        ban(&code, words, &format!("{module} is pure"));
    }
    if let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) {
        for (line, used) in uses(&code) {
            if used != module && !allowed.contains(&used.as_str()) {
                faults.push(Fault { file: name.into(), line, what: format!("{module} must not use {used}") });
            }
        }
    }
    faults
}

/// Where `code` has one of `words` as a whole word or path, by line.
fn mentions<'w>(code: &str, words: &[&'w str]) -> Vec<(usize, &'w str)> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for word in words {
            let whole = |(at, _): (usize, &str)| {
                !is_word(line[..at].chars().next_back()) && !is_word(line[at + word.len()..].chars().next())
            };
            if line.match_indices(word).any(whole) {
                found.push((number + 1, *word));
            }
        }
    }
    found
}

/// The modules named in `crate::NAME` and `crate::{NAME, NAME::…}`, by line.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, mark) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + mark.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group).into_iter().map(|member| (line, member))),
            None => found.push((line, first_word(rest))),
        }
    }
    // A capital is an item that lib.rs re-exports or a macro's, not a module.
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_lowercase()));
    found
}

/// The first word of each member of a `{…}` group whose opening brace is already behind us.
fn members(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut start = 0;
    let mut found = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.push(first_word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

fn first_word(code: &str) -> String {
    code.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The code with comments and the inside of literals made blank; lines stay where they are.
fn blank_text(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len()),
            ('/', '*') => end_of_block_comment(&chars, i),
            ('"', _) => end_of_string(&chars, i),
            ('r', '"' | '#') if i == 0 || !(at(i - 1).is_alphanumeric() || at(i - 1) == '_') => {
                end_of_raw_string(&chars, i)
            }
            // A character, not a lifetime.
            ('\'', '\\') => (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        if end == i {
            out.push(at(i));
            i += 1;
        } else {
            out.extend(chars[i..end.min(chars.len())].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// `r"…"`, `r#"…"#`; gives `start` back for a raw identifier such as `r#type`.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let closes =
        |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (start + 2 + hashes..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

/// The code with the items under `#[cfg(test)]` made blank.
fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let mut depth = 0;
        let mut end = out.len();
        for (at, c) in out[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                end = start + at + 1;
                break;
            }
        }
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::check_file;

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[&str]) {
        let faults: Vec<String> = check_file(name, text).iter().map(|f| format!("{}: {}", f.line, f.what)).collect();
        assert_eq!(faults, expected);
    }

    #[test]
    fn finds_imports_the_table_forbids() {
        check("src/policy/a.rs", "use crate::clock::Now;\nuse crate::policy::uri;", &[]);
        check("src/policy/a.rs", "\nuse crate::store::Entry;", &["2: policy must not use store"]);
        check("src/body/a.rs", "use crate::{\n  error::{A, B}, config,\n};", &["1: body must not use config"]);
        check("src/store/a.rs", "fn f() { crate::pipeline::run() }", &["1: store must not use pipeline"]);
        check("src/clock.rs", "use crate::error::ErrorKind;", &["1: clock must not use error"]);
        check("src/app/mod.rs", "use crate::{pipeline, config};", &[]);
        check("src/policy/a.rs", "macro_rules! m { () => { $crate::store::x() } } my_crate::store();", &[]);
        check("src/policy/a.rs", "pub(crate) fn f() -> crate::Thing {}", &[]);
    }

    #[test]
    fn finds_what_pure_code_must_not_mention() {
        check("src/policy/a.rs", "async fn f() {}", &["1: async: policy is pure"]);
        check("src/transform/a.rs", "use tokio::io;", &["1: tokio: transform is pure"]);
        check("src/policy/a.rs", "fn asynchronous() { let serde_like = 1; }", &[]);
        check("src/policy/a.rs", "use std::net::IpAddr;", &[]);
        check("src/store/a.rs", "use std::sync::Mutex;", &[]);
    }

    #[test]
    fn finds_clock_reads_sleeps_and_empty_names() {
        check("src/store/a.rs", "let t = Instant::now();", &["1: Instant::now: time is read in clock.rs"]);
        check("src/clock.rs", "let t = Instant::now();", &[]);
        check(
            "tests/it/a.rs",
            "\nstd::thread::sleep(d);",
            &["2: thread::sleep: a test waits for an event with a bound"],
        );
        check("src/upstream/a.rs", "tokio::time::sleep(d).await;", &[]);
        check("src/io_util.rs", "", &["1: \"util\" in a file name says nothing"]);
        check("src/utility.rs", "", &[]);
    }

    #[test]
    fn looks_at_code_only() {
        check("src/policy/a.rs", "// tokio\n/// crate::store::x\n/* hyper /* tokio */ async */", &[]);
        check("src/policy/a.rs", r##"const A: &str = "tokio \" async"; const B: &str = r#"a "tokio" b"#;"##, &[]);
        check("src/policy/a.rs", "const A: [char; 2] = ['\"', '\\'']; tokio", &["1: tokio: policy is pure"]);
        check("src/policy/a.rs", "fn f<'a>(x: &'a str) { tokio }", &["1: tokio: policy is pure"]);
        check("src/policy/a.rs", "#[cfg(test)]\nmod tests { fn f() { tokio } }\nasync", &["3: async: policy is pure"]);
        check("src/policy/a.rs", "#[cfg(test)]\nuse tokio;\nfn f() {}", &[]);
    }
}
