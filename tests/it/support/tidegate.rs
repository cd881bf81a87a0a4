//! A real Tidegate: the built program, on ports of the system's choosing, with its files in a folder of its own.
//!
//! The configuration is what every test needs (admin, access log, state) plus the test's own text. `[[listener]]`s say
//! `address = "127.0.0.1:0"`; the ports come back from the status page, whose own port is in the first lines. When a test fails, what the program
//! wrote to stderr is printed.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Answer, Client, Request};
use super::gate::{Watched, poll};
use super::origin::Origin;

/// A plain listener, named "http".
pub const PLAIN: &str = "[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n";

/// What every configuration begins with. Two workers, so that whatever must be shared between them is.
const BASE: &str = r#"
[server]
workers = 2
state_dir = "STATE"
shutdown_grace = "20s"
[admin]
address = "127.0.0.1:0"
[log]
access = { to = "stdout", format = "json" }
"#;

/// A pool of origins with equal weights, named `name`; `more` is further keys of the table.
pub fn pool(name: &str, origins: &[&Origin], more: &str) -> String {
    let endpoints: Vec<String> = origins.iter().map(|o| format!("{{ address = \"{}\" }}", o.address())).collect();
    format!("[[pool]]\nname = \"{name}\"\nendpoints = [{}]\n{more}\n", endpoints.join(", "))
}

/// A plain listener and a route for everything to one origin; `more` is further keys of that route.
pub fn front(origin: &Origin, more: &str) -> String {
    format!("{PLAIN}{}[[route]]\nname = \"all\"\npool = \"web\"\n{more}\n", pool("web", &[origin], ""))
}

/// The folder of a Tidegate that does not run yet.
#[derive(Debug)]
pub struct Setup {
    dir: TempDir,
}

impl Setup {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A file beside the configuration; folders on the way are made.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        write(&self.dir.path().join(name), content.as_ref());
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts with `text` behind the common part.
    ///
    /// # Panics
    ///
    /// When the program ends instead of listening, or says nothing in time.
    #[track_caller]
    pub fn start(self, text: &str) -> Tidegate {
        self.try_start(text).unwrap_or_else(|(status, words)| panic!("Tidegate did not start: {status}\n{words}"))
    }

    /// The same with one worker, where it matters which connections a worker has.
    #[track_caller]
    pub fn start_alone(self, text: &str) -> Tidegate {
        let base = self.base().replace("workers = 2", "workers = 1");
        let started = self.file("tidegate.toml", format!("{base}{text}")).try_start_file("tidegate.toml");
        started.unwrap_or_else(|(status, words)| panic!("Tidegate did not start: {status}\n{words}"))
    }

    /// The same, for a configuration that may be refused: then its exit status and what it said on stderr.
    #[track_caller]
    pub fn try_start(self, text: &str) -> Result<Tidegate, (ExitStatus, String)> {
        let base = self.base();
        self.file("tidegate.toml", format!("{base}{text}")).try_start_file("tidegate.toml")
    }

    fn base(&self) -> String {
        BASE.replace("STATE", &self.dir.path().join("state").display().to_string())
    }

    /// The same for a configuration that is a whole already.
    #[track_caller]
    pub fn try_start_file(self, name: &str) -> Result<Tidegate, (ExitStatus, String)> {
        let config = self.dir.path().join(name);
        let mut child = program(self.dir.path())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let access = collect(child.stdout.take().unwrap());
        let words = collect(child.stderr.take().unwrap());
        let mut gate = Tidegate { dir: self.dir, config, child, access, words, admin: None };
        // The admin listener is the last to be announced: a server is up when it can be asked.
        let up = gate.words.wait(|words| {
            let announced = words.lines.iter().any(|line| line.starts_with("admin on "));
            announced.then_some(true).or(words.ended.then_some(false))
        });
        match up {
            Some(true) => {
                gate.admin = gate.words.read(|words| announced(words, "admin on "));
                Ok(gate)
            }
            Some(false) => {
                let status = gate.child.wait().unwrap();
                Err((status, gate.words.read(|words| words.lines.join("\n"))))
            }
            None => panic!("Tidegate announced no admin listener"),
        }
    }
}

/// The built program, to be run in a folder.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).env_remove("XDG_STATE_HOME");
    command
}

/// Lines a pipe has given so far.
#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// A running Tidegate; killed when dropped.
#[derive(Debug)]
pub struct Tidegate {
    dir: TempDir,
    config: PathBuf,
    child: Child,
    access: Watched<Lines>,
    words: Watched<Lines>,
    admin: Option<SocketAddr>,
}

impl Tidegate {
    #[track_caller]
    pub fn start(text: &str) -> Self {
        Setup::new().start(text)
    }

    /// What `tidegate ARGUMENTS` says about this one: its data, or its words when it fails.
    pub fn ask(&self, arguments: &str) -> Result<String, String> {
        let mut program = program(self.dir.path());
        let output = program.arg("-c").arg(&self.config).args(arguments.split_whitespace()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The same for a verb that asks the running process.
    pub fn tell(&self, arguments: &str) -> Result<String, String> {
        self.ask(&format!("{arguments} --admin {}", self.admin.expect("it runs")))
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where a listener is.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        let status = self.status();
        let mut listeners = status["listeners"].as_array().expect("listeners").iter();
        let row = listeners.find(|row| row["name"] == name).unwrap_or_else(|| panic!("no listener {name}: {status}"));
        row["address"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// A client of the listener "http".
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.listener("http"))
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.client().get(target)
    }

    #[track_caller]
    pub fn admin(&self, target: &str) -> Answer {
        Client::connect(self.admin.expect("it runs")).get(target)
    }

    /// The same with POST and nothing in it.
    #[track_caller]
    pub fn admin_post(&self, target: &str) -> Answer {
        Client::connect(self.admin.expect("it runs")).ask(&Request::new("POST", target))
    }

    #[track_caller]
    pub fn metrics(&self) -> String {
        self.admin("/metrics").expect(200).text()
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.admin("/status").expect(200).body).unwrap()
    }

    #[track_caller]
    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().expect("generation is a number")
    }

    /// Polls the status page until `found` finds something.
    #[track_caller]
    pub fn wait_status<R>(&self, what: &str, mut found: impl FnMut(&Value) -> Option<R>) -> R {
        poll(what, || found(&self.status()))
    }

    /// Waits until every worker follows this generation or a later one.
    #[track_caller]
    pub fn wait_generation(&self, at_least: u64) {
        self.wait_status("a new generation", |status| {
            let mut workers = status["workers"].as_array()?.iter();
            workers.all(|worker| worker["generation"].as_u64().is_some_and(|seen| seen >= at_least)).then_some(())
        });
    }

    /// The endpoint's row of the status page.
    #[track_caller]
    pub fn endpoint(&self, origin: &Origin) -> Value {
        let address = origin.address().to_string();
        let status = self.status();
        let pools = status["pools"].as_array().expect("pools").iter();
        let mut endpoints = pools.flat_map(|pool| pool["endpoints"].as_array().into_iter().flatten());
        endpoints.find(|row| row["address"] == address.as_str()).cloned().expect("the endpoint is in the status")
    }

    /// Fails unless every endpoint is soon free again and nobody waits for one: nothing leaks with a broken exchange.
    #[track_caller]
    pub fn expect_idle(&self) {
        self.wait_status("all exchanges to end", |status| {
            let mut pools = status["pools"].as_array()?.iter();
            pools.all(|pool| pool["waiting"] == 0).then_some(())?;
            let mut endpoints = status["pools"].as_array()?.iter().flat_map(|p| p["endpoints"].as_array().unwrap());
            endpoints.all(|row| row["in_flight"] == 0).then_some(())
        });
    }

    /// The access log, waiting for `n` records.
    #[track_caller]
    pub fn access_log(&self, n: usize) -> Vec<Value> {
        let lines = self.access_lines(n);
        lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The same as text.
    #[track_caller]
    pub fn access_lines(&self, n: usize) -> Vec<String> {
        let found = self.access.wait(|access| (access.lines.len() >= n).then(|| access.lines.clone()));
        found.unwrap_or_else(|| panic!("{n} access records expected: {:?}", self.access.read(|a| a.lines.clone())))
    }

    /// Waits for a line on stderr that contains `part`.
    #[track_caller]
    pub fn wait_words(&self, part: &str) -> String {
        let found = self.words.wait(|words| words.lines.iter().find(|line| line.contains(part)).cloned());
        found.unwrap_or_else(|| panic!("nothing on stderr says {part:?}"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Changes the configuration in place, as `cat >` does.
    pub fn edit(&self, change: impl FnOnce(String) -> String) {
        write(&self.config, change(self.text()).as_bytes());
    }

    /// Changes it by writing another file and renaming that over it, as most editors do.
    pub fn edit_by_rename(&self, change: impl FnOnce(String) -> String) {
        let text = change(self.text());
        let beside = self.path("tidegate.toml.swp");
        write(&beside, text.as_bytes());
        std::fs::rename(beside, &self.config).unwrap();
    }

    /// Edits, and waits until the new generation serves.
    #[track_caller]
    pub fn reload(&self, change: impl FnOnce(String) -> String) {
        let before = self.generation();
        self.edit(change);
        self.wait_generation(before + 1);
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write(&self.path(name), content.as_ref());
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.config).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub fn exit_status(&mut self) -> ExitStatus {
        poll("the program to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- Tidegate said:\n{}\n---", self.words.read(|words| words.lines.join("\n")));
        }
    }
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Reads a pipe to its end on a thread of its own, so that the program never blocks on it.
fn collect(pipe: impl Read + Send + 'static) -> Watched<Lines> {
    let lines = Watched::<Lines>::default();
    std::thread::spawn({
        let lines = lines.clone();
        move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.update(|lines| lines.lines.push(line));
            }
            lines.update(|lines| lines.ended = true);
        }
    });
    lines
}

fn announced(words: &Lines, mark: &str) -> Option<SocketAddr> {
    words.lines.iter().find_map(|line| address_in(line, mark))
}

/// The address in `MARK127.0.0.1:PORT`, with or without a scheme.
fn address_in(line: &str, mark: &str) -> Option<SocketAddr> {
    let url = line.split_once(mark)?.1.split(' ').next()?;
    url.rsplit("//").next()?.parse().ok()
}

#[test]
fn reads_the_lines_a_server_starts_with() {
    let expected = Some(SocketAddr::from(([127, 0, 0, 1], 9180)));
    assert_eq!(address_in("admin on http://127.0.0.1:9180", "admin on "), expected);
    assert_eq!(address_in("admin on 127.0.0.1:9180", "admin on "), expected);
    assert_eq!(address_in("admin on nothing", "admin on "), None);
}
