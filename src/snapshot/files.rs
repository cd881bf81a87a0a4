//! The disk behind `config`, which itself touches none; and a digest of all that was read from it.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::Files;

/// Most bytes of one file; a configuration that names something larger named the wrong thing.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// Real files and environment variables. Notes the name and contents of everything asked for.
#[derive(Debug, Default)]
pub struct DiskFiles {
    digest: RefCell<DefaultHasher>,
}

impl DiskFiles {
    /// Differs when anything that was read, or failed to be read, differs. Compared within one process only.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.borrow().finish()
    }

    fn note(&self, what: impl Hash) {
        what.hash(&mut *self.digest.borrow_mut());
    }
}

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = read_bounded(path);
        self.note((path, read.as_ref().map_err(io::Error::kind).map(Vec::as_slice)));
        read
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let found = glob::glob(pattern).map_err(|error| error.to_string())?;
        // What cannot be read is reported when it is read.
        let mut paths: Vec<_> = found.filter_map(Result::ok).filter(|path| path.is_file()).collect();
        paths.sort();
        self.note(&paths);
        Ok(paths)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = std::env::var(name).ok();
        self.note((name, &value));
        value
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {FILE_MAX} bytes")));
    }
    Ok(bytes)
}
