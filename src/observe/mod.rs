//! What the process tells about itself: the access log, metrics, its own messages, its state.
//!
//! Everything here is handed values; nothing looks into the pipeline. The rules:
//!
//! - A log or metric fault never delays an exchange (invariant 6): a line goes into a bounded queue or is dropped and
//!   counted, a counter is one relaxed addition, and only the writer thread touches a file.
//! - Label values come from the configuration or from closed lists of tokens, never from a client, and their number is
//!   capped ([`metrics::SERIES_MAX`]).
//! - What a client sent is escaped before it reaches a line: no client can forge one, or talk to a terminal.
//!
//! Deliberately absent: a span per request, sampling, log shipping, exemplars.

pub mod access_log;
mod escape;
pub mod explanation;
pub mod format;
pub mod metrics;
pub mod process_log;
pub mod record;
pub mod status;
pub mod timestamp;
pub mod writer;

pub use access_log::{AccessLog, AccessLogHandle};
pub use format::{Field, Format, Part};
pub use metrics::{ExchangeOutcome, Metrics, WorkerMetrics};
pub use process_log::ProcessLog;
pub use record::{AccessRecord, Attempt, Phases};
pub use status::Status;
pub use writer::Target;
