//! Reading a configuration again, and knowing whether anything in it changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::DiskFiles;
use crate::config::model::Config;
use crate::config::{self, Diagnostics};

/// Reads the main file and everything it leads to; remembers what it saw.
#[derive(Debug)]
pub struct Reader {
    main: PathBuf,
    watched: Vec<PathBuf>,
    digest: Option<u64>,
}

/// One reading.
#[derive(Debug)]
pub struct Read {
    /// The configuration, or every fault in it.
    pub config: Result<Arc<Config>, Diagnostics>,
    /// What can be used but hardly says what was meant.
    pub warnings: Diagnostics,
    /// False when every file has the contents it had at the last reading.
    pub changed: bool,
}

impl Reader {
    /// A reader of the configuration whose main file is `main`.
    #[must_use]
    pub fn new(main: &Path) -> Self {
        Self { main: main.to_path_buf(), watched: vec![main.to_path_buf()], digest: None }
    }

    /// Reads everything anew.
    pub fn read(&mut self) -> Read {
        let files = DiskFiles::default();
        let outcome = config::load(&self.main, &files);
        self.watched = outcome.watched;
        let digest = files.digest();
        let changed = self.digest.replace(digest) != Some(digest);
        Read { config: outcome.config.map(Arc::new), warnings: outcome.warnings, changed }
    }

    /// The files of the last reading, readable or not, and the directories of the include globs.
    pub fn watched(&self) -> impl Iterator<Item = &Path> {
        self.watched.iter().map(PathBuf::as_path)
    }
}
