//! The main file and what it includes, put together into one tree.
//!
//! Files are read in order: the main one, then those that its `include` globs name, by file name. Tables are joined key
//! by key, arrays of tables end to end; a key that stands in two files is an error that points at both. So `[server]`
//! may be split over files with each key once, and `[cache.NAME]` is defined once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::diagnostics::{Diagnostic, Diagnostics};
use super::source::Location;
use super::tree::{self, Entry, Table, Value};

/// What the configuration needs of the world; the one thing that keeps this folder free of files.
pub trait Files {
    /// The contents of a file.
    ///
    /// # Errors
    ///
    /// As the file system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The files that match a shell pattern, in any order; none is no error.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern.
    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String>;

    /// An environment variable; `None` when unset or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Files that one configuration may consist of; far more than anybody can oversee.
const MAX_FILES: usize = 1024;

/// Bytes of one configuration file.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// Where the include globs look when the main file names none.
const DEFAULT_INCLUDE: &str = "conf.d/*.toml";

/// What was read.
pub(super) struct Joined {
    /// The whole, its position being the main file.
    pub(super) table: Table,
    /// The main file.
    pub(super) main: Location,
    /// False when a file is missing from `table` because it could not be read: names may be defined there.
    pub(super) complete: bool,
}

/// Reads and joins all files; `watched` gets each of them, and the folders that globs look into.
pub(super) fn read_all(
    main: &Path,
    files: &dyn Files,
    watched: &mut BTreeSet<PathBuf>,
    faults: &mut Diagnostics,
) -> Joined {
    let mut reader = Reader { files, watched, faults, complete: true };
    let at = reader.read(main, 0);
    let mut table = at.as_ref().and_then(|at| reader.parse(at)).unwrap_or_default();
    let main = at.unwrap_or_else(|| Location::file(main, String::new(), 0));
    for (order, path) in reader.included(&main, &table).iter().enumerate() {
        if let Some(included) = reader.read(path, order + 1).and_then(|at| reader.parse(&at)) {
            join(&mut table, included, reader.faults);
        }
    }
    Joined { table, main, complete: reader.complete }
}

/// The text of one file, which comes after `order` others.
pub(super) fn read_one(path: &Path, order: usize, files: &dyn Files, faults: &mut Diagnostics) -> Option<Location> {
    let text = files.read(path).map_err(|error| error.to_string()).and_then(|bytes| {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
        }
        String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|b| **b == b'\n');
            format!("line {} is not UTF-8", line.count() + 1)
        })
    });
    let refused = |reason: String| {
        let at = Location::file(path, String::new(), order);
        faults.push(Diagnostic::at(&at, format!("cannot be read: {reason}"), ""));
    };
    text.map_err(refused).ok().map(|text| Location::file(path, text, order))
}

struct Reader<'a> {
    files: &'a dyn Files,
    watched: &'a mut BTreeSet<PathBuf>,
    faults: &'a mut Diagnostics,
    complete: bool,
}

impl Reader<'_> {
    /// The text of one file.
    fn read(&mut self, path: &Path, order: usize) -> Option<Location> {
        self.watched.insert(path.to_owned());
        let read = read_one(path, order, self.files, self.faults);
        self.complete &= read.is_some();
        read
    }

    fn parse(&mut self, at: &Location) -> Option<Table> {
        let variables = |name: &str| self.files.variable(name);
        let table = tree::parse(at, &variables, self.faults);
        self.complete &= table.is_some();
        table
    }

    /// The files that `include` of the main file names, in order of file name.
    fn included(&mut self, main: &Location, table: &Table) -> Vec<PathBuf> {
        let default = [(DEFAULT_INCLUDE.to_owned(), main.clone())];
        let patterns: Vec<(String, Location)> = match table.get("include").map(|entry| &entry.node.value) {
            // What is not a string is reported when the keys are read.
            Some(Value::Array(items)) => items
                .iter()
                .filter_map(|item| match &item.value {
                    Value::Text(pattern) => Some((pattern.clone(), item.at.clone())),
                    _ => None,
                })
                .collect(),
            Some(_) => Vec::new(),
            None => default.to_vec(),
        };
        let mut found = BTreeSet::new();
        for (pattern, at) in patterns {
            let pattern = main.resolve(&pattern);
            self.watched.extend(fixed_folder(&pattern));
            match self.files.glob(&pattern.to_string_lossy()) {
                Ok(paths) => found.extend(paths.into_iter().map(|path| (path.file_name().map(Into::into), path))),
                Err(reason) => self.faults.push(Diagnostic::at(&at, format!("include is not a pattern: {reason}"), "")),
            }
        }
        let found: BTreeSet<(Option<std::ffi::OsString>, PathBuf)> = found;
        if found.len() > MAX_FILES {
            self.faults.push(Diagnostic::at(main, format!("include names more than {MAX_FILES} files"), ""));
        }
        found.into_iter().map(|(_, path)| path).filter(|path| path != main.path()).take(MAX_FILES).collect()
    }
}

/// The folder above the first part of `pattern` that is a pattern: a file that appears there may match.
fn fixed_folder(pattern: &Path) -> Option<PathBuf> {
    let is_fixed = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let fixed: PathBuf = pattern.parent()?.components().take_while(is_fixed).collect();
    Some(if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed })
}

/// Adds what an included file says.
fn join(whole: &mut Table, included: Table, faults: &mut Diagnostics) {
    for entry in included.0 {
        if entry.key == "include" {
            let help = "move the pattern to the main file";
            faults.push(Diagnostic::at(&entry.key_at, "include works in the main file only", help));
            continue;
        }
        let Some(first) = whole.0.iter_mut().find(|first| first.key == entry.key) else {
            whole.0.push(entry);
            continue;
        };
        match (&mut first.node.value, entry.node.value) {
            (Value::Table(first), Value::Table(second)) => join_keys(&entry.key, first, second, faults),
            (Value::Array(first), Value::Array(second)) => first.extend(second),
            (_, value) => {
                let here = tree::Node { at: entry.node.at, value };
                let what = format!("{} is {} here and {} elsewhere", entry.key, here.shown(), first.node.shown());
                faults.push(Diagnostic::at(&entry.key_at, what, "").related(&first.key_at, "elsewhere"));
            }
        }
    }
}

/// Joins two tables of which each key may be in one only.
fn join_keys(table: &str, first: &mut Table, second: Table, faults: &mut Diagnostics) {
    for entry in second.0 {
        match first.get(&entry.key) {
            Some(earlier) => faults.push(twice(&format!("{table}.{}", entry.key), earlier, &entry)),
            None => first.0.push(entry),
        }
    }
}

fn twice(key: &str, first: &Entry, second: &Entry) -> Diagnostic {
    Diagnostic::at(&second.key_at, format!("{key} is defined twice"), "keep one of them")
        .related(&first.key_at, "first defined here")
}
