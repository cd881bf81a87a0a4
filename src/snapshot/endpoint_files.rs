//! The files of each `discover.directory`: endpoints that whoever starts and stops origins writes and deletes.
//!
//! They are watched as the configuration is, and read whenever that is. A file that is faulty counts as what it last was,
//! for as long as it is there; a folder without a good file counts as what it last was too. What is wrong is shown in
//! `status`, the log and a metric.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::DiskFiles;
use crate::config::{Files as _, load_endpoints};
use crate::policy::discovery::{DiscoverParams, Source};
use crate::policy::pool::{EndpointParams, PoolParams};
use crate::upstream::Findings;

/// Files of one folder that are read: as many as a pool may have endpoints.
const MAX_FILES: usize = 1000;

/// The last good contents of every file, by folder.
#[derive(Debug, Clone, Default)]
pub struct EndpointFiles(HashMap<PathBuf, HashMap<PathBuf, Vec<EndpointParams>>>);

impl EndpointFiles {
    /// Reads the folders of `pools`, tells `findings` what is in those that changed, and forgets the other folders.
    pub fn read<'a>(&mut self, pools: impl Iterator<Item = &'a PoolParams>, findings: &Findings) {
        let before = std::mem::take(&mut self.0);
        for pool in pools {
            let Some(discover) = &pool.discover else { continue };
            let Source::Directory(folder) = &discover.source else { continue };
            // Not taken out: several pools may share a folder.
            let known = before.get(folder).cloned().unwrap_or_default();
            let known = read_folder(&pool.name, folder, discover, known, findings);
            self.0.insert(folder.clone(), known);
        }
    }
}

/// Reads one folder, of which `known` is what its files last were.
fn read_folder(
    pool: &str,
    folder: &Path,
    discover: &DiscoverParams,
    mut known: HashMap<PathBuf, Vec<EndpointParams>>,
    findings: &Findings,
) -> HashMap<PathBuf, Vec<EndpointParams>> {
    let files = DiskFiles::default();
    let pattern = Path::new(&glob::Pattern::escape(&folder.to_string_lossy())).join("[!.]*.toml");
    let mut details = Vec::new();
    let found = files.glob(&pattern.to_string_lossy()).unwrap_or_else(|reason| {
        details.push(format!("{}: {reason}", folder.display()));
        Vec::new()
    });
    if found.len() > MAX_FILES {
        details.push(format!("{}: more than {MAX_FILES} files; the rest is left off", folder.display()));
    }
    let mut kept = HashMap::new();
    let mut endpoints: Vec<EndpointParams> = Vec::new();
    for path in found.into_iter().take(MAX_FILES) {
        let read =
            load_endpoints(&path, &files).map_err(|faults| details.extend(faults.iter().map(ToString::to_string)));
        let Some(read) = read.ok().or_else(|| known.remove(&path)) else { continue };
        // An address in two files is that of the first.
        let further = read.iter().filter(|one| !endpoints.iter().any(|other| other.address == one.address));
        let further: Vec<_> = further.cloned().collect();
        endpoints.extend(further);
        kept.insert(path, read);
    }
    findings.read(pool, discover, endpoints, details);
    kept
}
