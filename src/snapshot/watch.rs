//! Noticing that a configuration file may have changed.
//!
//! Directories are watched, not files: editors save by renaming a new file over the old one, and Kubernetes swaps the
//! `..data` symlink beside the mounted files; a watch on the file itself would be left holding the old inode. Events
//! only say *look again*; whether anything changed is decided by content (see [`super::reload`]). Where inotify does
//! not work (no descriptors left, some network and overlay file systems) the same look is taken on a timer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long nothing must happen after an event before the files are read: editors write in several steps.
pub const DEBOUNCE: Duration = Duration::from_millis(100);

/// The longest a stream of events can put off a look, so that a directory that never rests is still followed.
pub const DEBOUNCE_LIMIT: Duration = Duration::from_millis(400);

/// How often files are looked at where inotify does not work.
pub const POLL_FAST: Duration = Duration::from_millis(500);

/// How often files are looked at although inotify works: some changes raise no event (remote writes on NFS).
pub const POLL_SLOW: Duration = Duration::from_secs(10);

/// How changes are noticed; shown in `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Kernel events.
    Inotify,
    /// The timer alone.
    Poll,
}

impl Mode {
    /// The word `status` uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inotify => "inotify",
            Self::Poll => "poll",
        }
    }

    /// How long to wait for an event before looking anyway.
    #[must_use]
    pub fn interval(self) -> Duration {
        match self {
            Self::Inotify => POLL_SLOW,
            Self::Poll => POLL_FAST,
        }
    }
}

/// A watch on the directories of all files that a configuration was read from.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    /// Something happened that [`Self::changed`] has not reported yet.
    pending: bool,
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Starts watching nothing; [`Self::follow`] says what.
    #[must_use]
    pub fn new() -> Self {
        // One waiting event is enough: all it says is "look".
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading must not wake us again.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            let _already_waiting = sender.try_send(());
        })
        .inspect_err(|error| tracing::warn!(%error, "no file events; configuration files are polled"))
        .ok();
        Self { watcher, directories: BTreeSet::new(), pending: false, events }
    }

    /// Watches the directories of `files` (and directories among them) and no others. A directory that cannot be
    /// watched is reported and left to polling. A directory that is new counts as changed: what happened in it before the
    /// watch was there raised no event.
    pub fn follow<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let wanted: BTreeSet<PathBuf> = files.flat_map(directories_of).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.difference(&wanted) {
            // A directory that was deleted is unwatched already.
            let _gone = watcher.unwatch(gone);
        }
        let mut watched = BTreeSet::new();
        for directory in wanted {
            let known = self.directories.contains(&directory);
            match if known { Ok(()) } else { watcher.watch(&directory, RecursiveMode::NonRecursive) } {
                Ok(()) => {
                    watched.insert(directory);
                }
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "cannot watch; configuration files are polled");
                    self.watcher = None;
                    return;
                }
            }
        }
        self.pending |= !watched.is_subset(&self.directories);
        self.directories = watched;
    }

    /// How changes are noticed at present.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.watcher.is_some() { Mode::Inotify } else { Mode::Poll }
    }

    /// Waits until the files should be looked at: events have come and gone quiet, or the poll interval is over.
    /// Cancel-safe: an event that was taken is remembered.
    pub async fn changed(&mut self) {
        if !self.pending {
            let interval = self.mode().interval();
            if tokio::time::timeout(interval, event(&mut self.events)).await.is_err() {
                return;
            }
            self.pending = true;
        }
        // Trailing debounce with a limit.
        let quiet = async { while tokio::time::timeout(DEBOUNCE, event(&mut self.events)).await.is_ok() {} };
        let _went_on_and_on = tokio::time::timeout(DEBOUNCE_LIMIT, quiet).await;
        self.pending = false;
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

/// The next event; never, once the watcher is gone.
async fn event(events: &mut mpsc::Receiver<()>) {
    if events.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// The directories to watch for one file: the one it is named in, and the one it really lies in when links lead there.
fn directories_of(file: &Path) -> Vec<PathBuf> {
    if file.is_dir() {
        return vec![file.to_path_buf()];
    }
    let named = file.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let real = file.canonicalize().ok().and_then(|real| real.parent().map(Path::to_path_buf));
    named.map(Path::to_path_buf).into_iter().chain(real).filter(|directory| directory.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for the watch to fire well before its poll interval would.
    async fn fires(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_the_files_are_looked_at_on_a_timer() {
        let mut watch = Watch { watcher: None, ..Watch::new() };
        assert_eq!(watch.mode(), Mode::Poll);
        let turns = async {
            watch.changed().await;
            watch.changed().await;
        };
        let in_time = tokio::time::timeout(POLL_FAST * 2 + Duration::from_millis(1), turns).await;
        assert!(in_time.is_ok(), "a look every {POLL_FAST:?}");
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_symlink_swap_are_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            std::fs::create_dir(path(version)).expect("created");
            std::fs::write(path(version).join("linked.toml"), version).expect("written");
        }
        std::fs::write(path("plain.toml"), "1").expect("written");
        std::os::unix::fs::symlink("v1", path("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/linked.toml", path("linked.toml")).expect("linked");

        let mut watch = Watch::new();
        assert_eq!(watch.mode(), Mode::Inotify);
        let files = [path("plain.toml"), path("linked.toml")];
        watch.follow(files.iter().map(PathBuf::as_path));

        std::fs::write(path("plain.toml"), "2").expect("written");
        assert!(fires(&mut watch).await, "written in place");
        std::fs::write(path("new"), "3").expect("written");
        std::fs::rename(path("new"), path("plain.toml")).expect("renamed");
        assert!(fires(&mut watch).await, "renamed over");
        std::os::unix::fs::symlink("v2", path("..tmp")).expect("linked");
        std::fs::rename(path("..tmp"), path("..data")).expect("renamed");
        assert!(fires(&mut watch).await, "symlink swapped");
    }
}
