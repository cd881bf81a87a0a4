//! `server.state_dir`: what survives a restart, locked against a second instance.
//!
//! Created with mode 0700; files in it with 0600. Holds the lock, TLS ticket keys, the
//! secret of sticky cookies and self-signed certificates. It is
//! never watched: nothing in it is configuration.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The locked directory; the lock lasts as long as this value.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates the directory where it is missing and takes the lock.
    ///
    /// # Errors
    /// `WouldBlock` when another instance holds the lock, else what the file system said.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// The contents of a file in it; `None` when there is none.
    ///
    /// # Errors
    /// What the file system said, apart from *not found*.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a file in it as a whole: a crash leaves the old or the new one.
    ///
    /// # Errors
    /// What the file system said.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(fresh, self.path.join(name))
    }

    /// Hands the directory and what lies in it to the user the process is about to become.
    ///
    /// # Errors
    /// What the file system said.
    pub(super) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        std::os::unix::fs::chown(&self.path, Some(uid), Some(gid))?;
        for entry in fs::read_dir(&self.path)? {
            std::os::unix::fs::chown(entry?.path(), Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_at_a_time_and_files_are_replaced_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state");
        let first = StateDir::open(&path).expect("nobody else");
        assert_eq!(StateDir::open(&path).expect_err("locked").kind(), io::ErrorKind::WouldBlock);
        assert_eq!(first.read("keys").expect("readable"), None);
        first.write("keys", b"one").expect("written");
        first.write("keys", b"two").expect("written");
        assert_eq!(first.read("keys").expect("readable").as_deref(), Some(&b"two"[..]));
        drop(first);
        assert!(StateDir::open(&path).is_ok(), "the lock went with its holder");
    }
}
