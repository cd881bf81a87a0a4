//! The process's own messages: to stderr, at a level that a reload may change.
//!
//! `[log] level` applies to our messages; the crates we use are heard from `warn` on. There is no level `trace`: its calls
//! are compiled out of release builds, where they would cost h2 and hyper something for each frame.
//! Lines go through a writer thread like the access log's, so that a stuck terminal or pipe holds up no worker.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::writer::{Target, Writer};

/// The running process log.
#[derive(Debug)]
pub struct ProcessLog {
    filter: reload::Handle<Targets, Registry>,
    writer: Writer,
}

impl ProcessLog {
    /// Installs the process log for the whole process; `level` as [`ProcessLog::set_level`].
    ///
    /// # Errors
    /// Fails when a log was installed before, or no thread can be started.
    pub fn start(level: &str) -> io::Result<Self> {
        let writer = Writer::start("process-log", Target::Stderr)?;
        let (filter, handle) = reload::Layer::new(targets(level));
        let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(Lines(writer.clone()));
        tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(io::Error::other)?;
        Ok(Self { filter: handle, writer })
    }

    /// Changes the level: `error`, `warn`, `info`, `debug` or `off`; what is none of these means `info`.
    pub fn set_level(&self, level: &str) {
        if let Err(error) = self.filter.reload(targets(level)) {
            tracing::warn!(%error, level, "the log level could not be changed");
        }
    }

    /// Waits until every message has been written, at most `bound`; false when it took longer. For shutdown.
    #[must_use]
    pub fn flush(&self, bound: Duration) -> bool {
        self.writer.flush(bound)
    }
}

fn targets(level: &str) -> Targets {
    let ours: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), ours)
        // Warns of each datagram that answers no question, and anybody can send one.
        .with_target("hickory_net", ours.min(LevelFilter::ERROR))
        .with_default(ours.min(LevelFilter::WARN))
}

/// Posts each formatted message as one line.
#[derive(Debug, Clone)]
struct Lines(Writer);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.post(bytes.into(), 1);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn our_messages_follow_the_level_and_others_stay_quiet() {
        let check = |level: &str, ours: Level, theirs: Option<Level>| {
            let targets = targets(level);
            let enabled = |target: &str, level: Level| targets.would_enable(target, &level);
            assert!(enabled("tidegate::listener", ours), "{level}: ours at {ours}");
            let loudest = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
                .into_iter()
                .find(|level| enabled("h2::codec", *level));
            assert_eq!(loudest, theirs, "{level}: others");
        };
        check("info", Level::INFO, Some(Level::WARN));
        check("debug", Level::DEBUG, Some(Level::WARN));
        check("error", Level::ERROR, Some(Level::ERROR));
        check("nonsense", Level::INFO, Some(Level::WARN));
        assert!(!targets("info").would_enable("tidegate", &Level::DEBUG));
        assert!(!targets("debug").would_enable("hickory_net::udp", &Level::WARN));
        assert!(!targets("off").would_enable("tidegate", &Level::ERROR));
    }
}
