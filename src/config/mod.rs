//! Text → [`model::Config`].
//!
//! Three levels: the files as text (`files`, `tree`), the keys with their units and bounds (`raw`, by means of `shape`
//! and `table`), and how they go together (`validate`). Each level is a total function that collects every fault and
//! goes on; a value that was refused is replaced by a stand-in nobody sees, since a configuration with a fault is never
//! handed out. So one run shows all there is to mend.
//!
//! Nothing here opens a file: the caller lends a [`Files`], and tests lend a map. What is still unknown afterwards,
//! whether a key fits its certificate or an address can be bound, is found by whoever builds the snapshot, who reports
//! it with [`Diagnostic::at`] at the [`Location`] that the model carries.

mod diagnostics;
mod files;
pub mod model;
mod raw;
pub mod routing;
mod shape;
mod source;
pub mod summary;
mod table;
mod tree;
mod units;
mod validate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use files::Files;
pub use model::Config;
pub use source::Location;

use crate::policy::pool::EndpointParams;

use shape::Shape;

/// What became of reading a configuration.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration, or every error in it.
    pub config: Result<Config, Diagnostics>,
    /// What does not stop it from being used.
    pub warnings: Diagnostics,
    /// Every file it was read from or names (configuration, certificates, keys, pages, secrets) and the folders that
    /// include globs look into, also when the reading failed: a change of any may mend it.
    pub watched: Vec<PathBuf>,
}

/// Reads the configuration whose main file is `main`.
#[must_use]
pub fn load(main: &Path, files: &dyn Files) -> Outcome {
    let mut watched = BTreeSet::new();
    let mut faults = Diagnostics::default();
    let joined = files::read_all(main, files, &mut watched, &mut faults);
    let root = tree::Node { at: joined.main.clone(), value: tree::Value::Table(joined.table) };
    let raw = raw::RawRoot::read(&root, &shape::Place::root(&root.at), &mut faults).unwrap_or_default();
    let mut validation = validate::Validation { files, faults, watched, complete: joined.complete };
    let config = validation.root(&raw, &root.at);
    let (errors, warnings) = validation.faults.split();
    Outcome {
        config: if errors.is_empty() { Ok(config) } else { Err(errors) },
        warnings,
        watched: validation.watched.into_iter().collect(),
    }
}

/// Reads a file of a `discover.directory`: an endpoint, or a list of them.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_endpoints(path: &Path, files: &dyn Files) -> Result<Vec<EndpointParams>, Diagnostics> {
    validate::discover::endpoint_file(path, files)
}

/// The language as JSON Schema, for editors: `config/schema.json`.
#[must_use]
pub fn schema() -> serde_json::Value {
    let schema = table::with(raw::RawRoot::schema(), "title", "Tidegate configuration".into());
    table::with(schema, "$schema", "https://json-schema.org/draft/2020-12/schema".into())
}
