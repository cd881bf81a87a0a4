//! `server.user`: becoming an ordinary user once the listeners are bound.
//!
//! The calls change the calling thread only, and threads inherit from the one that starts them: so this runs on the
//! main thread before any other is started.
//!
//! What root could read at the start, that user must read again at a reload: [`unreadable`] tells before it is too late.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};

/// A user as the system's database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
}

/// Looks a user up by name in the text of `/etc/passwd`.
#[must_use]
pub(crate) fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (found == name).then_some(User { uid, gid })
    })
}

/// True when the process may change its user.
#[must_use]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Becomes `user`, with its primary group and no other.
///
/// # Errors
/// What the kernel said; the process must not go on then, as it may have changed half way.
pub(crate) fn become_user(user: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[gid])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Bits of a file's mode, as the least three of a class have them.
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// Whose a file is, and what it allows.
#[derive(Debug, Clone, Copy)]
struct Ownership {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// True when `user`, who is in no group but its own, may do all that `bits` say. As the kernel has it, the first class
/// that fits decides: an owner without permission is not helped by what others may do.
fn may(user: User, file: Ownership, bits: u32) -> bool {
    let class = match (user.uid == file.uid, user.gid == file.gid) {
        (true, _) => file.mode >> 6,
        (false, true) => file.mode >> 3,
        (false, false) => file.mode,
    };
    user.uid == 0 || class & bits == bits
}

/// The first thing on the way to `path` that `user` may not pass, or `path` itself when it may not be read.
fn obstacle(user: User, path: &Path, look: impl Fn(&Path) -> Option<Ownership>) -> Option<PathBuf> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let refused = |step: &&Path| {
        let bits = if *step == path { READ } else { SEARCH };
        look(step).is_some_and(|found| !may(user, found, bits))
    };
    way.into_iter().find(refused).map(Path::to_path_buf)
}

/// The files that `user` could not read, each with what stands in the way: itself, or a folder above it. By mode and
/// owner; access lists are not looked at. Files that are not there count as readable: nobody reads those.
#[must_use]
pub(crate) fn unreadable<'a>(user: User, files: impl Iterator<Item = &'a Path>) -> Vec<(&'a Path, PathBuf)> {
    let look = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some(Ownership { uid: found.uid(), gid: found.gid(), mode: found.mode() })
    };
    let obstacle_of = |file: &'a Path| Some((file, obstacle(user, &file.canonicalize().ok()?, look)?));
    files.filter_map(obstacle_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let web = User { uid: 33, gid: 34 };
        let check = |uid: u32, gid: u32, mode: u32, expected: bool| {
            assert_eq!(may(web, Ownership { uid, gid, mode }, READ), expected, "{uid}:{gid} {mode:o}");
        };
        check(0, 0, 0o100_644, true);
        check(0, 0, 0o100_640, false);
        check(0, 34, 0o100_640, true);
        check(33, 0, 0o100_400, true);
        check(33, 34, 0o100_044, false);
        check(0, 34, 0o100_604, false);
        assert!(may(User { uid: 0, gid: 0 }, Ownership { uid: 33, gid: 34, mode: 0 }, READ));
    }

    #[test]
    fn every_folder_on_the_way_must_let_through() {
        let check = |file: u32, folder: u32, expected: Option<&str>| {
            let look = |path: &Path| {
                let mode = match path.to_str()? {
                    "/etc/gate/site.key" => file,
                    "/etc/gate" => folder,
                    _ => 0o755,
                };
                Some(Ownership { uid: 0, gid: 0, mode })
            };
            let found = obstacle(User { uid: 33, gid: 34 }, Path::new("/etc/gate/site.key"), look);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{file:o} in {folder:o}");
        };
        check(0o644, 0o755, None);
        check(0o644, 0o711, None);
        check(0o600, 0o755, Some("/etc/gate/site.key"));
        check(0o644, 0o700, Some("/etc/gate"));
    }

    #[test]
    fn users_are_found_by_exact_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/var/www:/bin/false\n";
        assert_eq!(find(passwd, "web"), Some(User { uid: 33, gid: 34 }));
        assert_eq!(find(passwd, "we"), None);
        assert_eq!(find(passwd, "broken"), None);
    }
}
