//! The command line: one file per verb.
//!
//! Data goes to standard output, words to standard error, `--json` makes the data machine-readable. Exit code 0 is fine,
//! 1 a failure or an invalid configuration, 2 wrong usage. A verb writes its data to a writer it is given and hands its
//! words back, so that tests need no process.

mod ask;
mod check;
mod drain;
mod explain;
mod purge;
mod reload;
mod route;
mod status;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Diagnostics};
use crate::snapshot::files::DiskFiles;

/// TLS terminator, HTTP cache, rewriter, compressor and load balancer in one process.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version)]
struct Arguments {
    /// The configuration's main file
    #[arg(short, long, global = true, value_name = "FILE", default_value = "config/tidegate.toml")]
    config: PathBuf,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until told to stop (what happens without a verb)
    Run,
    /// Validate the configuration and print what would be served
    Check(check::Arguments),
    /// Print the route that a request for URL takes, and why
    Route(route::Arguments),
    /// Ask the running process what it would do with a request for URL, and why
    Explain(explain::Arguments),
    /// Ask the running process how it is
    Status(ask::Arguments),
    /// Tell the running process what stored answers to forget
    Purge(purge::Arguments),
    /// Tell the running process to drain an endpoint, or to take it back
    Drain(drain::Arguments),
    /// Tell the running process to read its configuration again
    Reload(ask::Arguments),
}

/// Why a verb failed.
#[derive(Debug)]
enum Failure {
    /// Words for standard error.
    Words(String),
    /// The data on standard output says it, or nobody is left to read it.
    Told,
}

impl From<io::Error> for Failure {
    /// Faults of writing the data.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Told } else { Self::Words(error.to_string()) }
    }
}

/// Parses the command line, runs its verb and says how that went.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        // Help and version are no errors: clap knows the stream and the exit code of each.
        Err(answer) => answer.exit(),
    };
    let Arguments { config, verb } = arguments;
    let mut out = io::stdout().lock();
    let done = match verb.unwrap_or(Verb::Run) {
        Verb::Run => {
            drop(out);
            return crate::app::run(&config);
        }
        Verb::Check(arguments) => check::run(&arguments, &config, &mut out),
        Verb::Route(arguments) => route::run(&arguments, &config, &mut out),
        Verb::Explain(arguments) => explain::run(&arguments, &config, &mut out),
        Verb::Status(arguments) => status::run(&arguments, &config, &mut out),
        Verb::Purge(arguments) => purge::run(&arguments, &config, &mut out),
        Verb::Drain(arguments) => drain::run(&arguments, &config, &mut out),
        Verb::Reload(arguments) => reload::run(&arguments, &config, &mut out),
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Failure::Words(words) = failure {
                complain(&words);
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(words)
}

/// Words on standard error. When that is closed there is nobody to tell.
fn complain(words: &str) {
    let _ = writeln!(io::stderr(), "{}", words.trim_end());
}

/// The configuration, its warnings said; or all that is wrong with it.
fn load(main: &Path) -> Result<Config, Diagnostics> {
    let config::Outcome { config, warnings, .. } = config::load(main, &DiskFiles::default());
    warn(&warnings);
    config
}

/// Says what does not stop a configuration from being used.
fn warn(warnings: &Diagnostics) {
    if !warnings.is_empty() {
        complain(&listed(warnings));
    }
}

/// Diagnostics as the operator reads them.
fn listed(diagnostics: &Diagnostics) -> String {
    diagnostics.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb_of(line: &str) -> Result<String, i32> {
        let words = line.split_whitespace().map(OsString::from);
        parse(words).map(|arguments| format!("{:?}", arguments.verb)).map_err(|error| error.exit_code())
    }

    #[test]
    fn each_verb_parses_and_nothing_else_does() {
        let check = |line: &str, expected: Result<&str, i32>| {
            let got = verb_of(line);
            match (&got, expected) {
                (Ok(verb), Ok(expected)) => assert!(verb.starts_with(expected), "{line}: {verb}"),
                _ => assert_eq!(got.map(drop), expected.map(drop), "{line}"),
            }
        };
        check("tidegate", Ok("None"));
        check("tidegate run", Ok("Some(Run)"));
        check("tidegate check", Ok("Some(Check("));
        check("tidegate check --json", Ok("Some(Check("));
        check("tidegate route http://a/ -H A:b -H c:d --method HEAD --listener l --client ::1", Ok("Some(Route("));
        check("tidegate status --json", Ok("Some(Status("));
        check("tidegate status --admin unix:/run/a.sock", Ok("Some(Status("));
        check("tidegate reload", Ok("Some(Reload("));
        check("tidegate --help", Err(0));
        check("tidegate --version", Err(0));
        check("tidegate purge http://a/", Ok("Some(Purge("));
        check("tidegate purge --tag a --tag b --soft --dry-run --json", Ok("Some(Purge("));
        check("tidegate purge --all", Ok("Some(Purge("));
        check("tidegate drain web/10.0.0.1:80", Ok("Some(Drain("));
        check("tidegate drain web/10.0.0.1:80 --clear", Ok("Some(Drain("));
        check("tidegate drain web/10.0.0.1:80 --up --down", Err(2));
        check("tidegate drain web", Err(2));
        check("tidegate purge", Err(2));
        check("tidegate purge --all --host h", Err(2));
        check("tidegate explain http://a/ -X HEAD -H A:b --json --admin 127.0.0.1:1", Ok("Some(Explain("));
        check("tidegate explain", Err(2));
        check("tidegate route", Err(2));
        check("tidegate route http://a/ -H nocolon", Err(2));
        check("tidegate route http://a/ --client localhost", Err(2));
        check("tidegate route /no/host", Err(2));
        check("tidegate status --admin nowhere", Err(2));
        check("tidegate --nonsense", Err(2));
    }

    #[test]
    fn the_file_may_stand_before_or_after_the_verb() {
        let check = |line: &str, expected: &str| {
            let words = line.split_whitespace().map(OsString::from);
            assert_eq!(parse(words).unwrap().config, Path::new(expected), "{line}");
        };
        check("tidegate", "config/tidegate.toml");
        check("tidegate -c a.toml check", "a.toml");
        check("tidegate check --config b.toml", "b.toml");
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
