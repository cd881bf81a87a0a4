//! The files as typed: every key there is, with its unit, bounds, default and documentation, one file per section.
//!
//! What is listed here *is* the language: the reader, the suggestions and `config/schema.json` are made from it (see
//! [`super::table`]). A type here says nothing about how keys go together; that is [`super::validate`]'s business.

mod listener;
mod policies;
mod pool;
mod route;
mod server;

pub(super) use listener::*;
pub(super) use policies::*;
pub(super) use pool::*;
pub(super) use route::*;
pub(super) use server::*;

use super::shape::{List, Map};
use super::table::table;

/// Milliseconds of a minute, an hour and a day: the bounds most durations have.
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// For what clients keep.
const YEAR: u64 = 365 * DAY;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

table! {
    /// The configuration of Tidegate: one main file and every file its include globs name.
    RawRoot {
        /// Globs of further files, relative to the main file, read in order of file name. Main file only.
        /// Default: conf.d/*.toml.
        include: List<String>,
        /// The process as a whole.
        server: RawServer [nested],
        /// The memory store, process-wide.
        store: RawStore [nested],
        /// The admin listener: metrics, status, health. On a loopback address by default.
        admin: RawAdmin [nested],
        /// What is written where.
        log: RawLog [nested],
        /// In-process demo origins, for the first start only. Absent: none.
        demo: RawDemo,
        /// Bodies for local replies, by status: files, relative to this one. Small built-ins by default.
        errors: Map<String>,
        /// Where clients connect.
        listener: List<RawListener>,
        /// Groups of origin servers.
        pool: List<RawPool>,
        /// Cache policies by name; a route that names none is not cached.
        cache: Map<RawCache>,
        /// Rewrite policies by name; a route that names none is not rewritten.
        rewrite: Map<RawRewrite>,
        /// Compression policies by name; a route that names none is not compressed.
        compress: Map<RawCompress>,
        /// What becomes of a request. The most specific route wins, whatever the order of the files.
        route: List<RawRoute>,
    }
    later { "guard" }
}
