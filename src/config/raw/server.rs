//! `[server] [store] [admin] [log] [demo]`.

use serde_json::{Value as Json, json};

use super::{GIB, HOUR, MIB, TIB};
use crate::config::diagnostics::Diagnostics;
use crate::config::shape::{Place, Shape, mismatch};
use crate::config::table::{table, words};
use crate::config::tree::{Node, Value};
use crate::config::units::{Int, Size, Span};
use crate::policy::pool::Address;

table! {
    /// The process as a whole.
    RawServer {
        /// Workers, one thread each: "auto" is one per core. Changing it needs a restart.
        workers: RawWorkers = RawWorkers::Auto,
        /// Folder for ticket keys and self-signed certificates, relative to the working directory; made with mode 0700
        /// and locked against a second instance. Default: $XDG_STATE_HOME/tidegate, else ./.tidegate.
        state_dir: String,
        /// User to become after binding, when started as root.
        user: String,
        /// How long running exchanges may take to finish when the process is told to stop.
        shutdown_grace: Span<0, HOUR> = Span::seconds(30),
        /// Client connections over all listeners.
        max_connections: Int<1, 1_000_000> = Int(50_000),
        /// Exchanges with origin servers at once, over all pools. Beyond it, what the cache cannot answer is refused with
        /// 503 at once, while hits go on. Absent: no limit.
        max_misses: Int<1, 1_000_000>,
    }
}

/// `workers`
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum RawWorkers {
    /// `"auto"`
    Auto,
    /// A number.
    Count(usize),
}

/// More threads than this serve nobody.
type WorkerCount = Int<1, 1024>;

impl Shape for RawWorkers {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == "auto" => Some(Self::Auto),
            Value::Integer(_) => WorkerCount::read(node, place, faults).map(|count| Self::Count(count.get())),
            _ => {
                mismatch(node, place, "\"auto\" or a number", faults);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "auto" }, WorkerCount::schema()] })
    }

    fn show(&self) -> Json {
        match self {
            Self::Auto => json!("auto"),
            Self::Count(count) => json!(count),
        }
    }
}

table! {
    /// The memory store, process-wide.
    RawStore {
        /// Bytes the cache may take in memory, bookkeeping included.
        size: Size<MIB, TIB> = Size(GIB),
    }
}

table! {
    /// The admin listener.
    RawAdmin {
        /// An IP address and port, or unix:/path. Default: 127.0.0.1:9180.
        address: Address,
        /// File with the bearer token that clients must send; needed for anything but a loopback address or a unix
        /// socket.
        token_file: String,
    }
}

table! {
    /// What is written where.
    RawLog {
        /// The access log: { to, format }, or false for none. Default: JSON on stdout.
        access: RawAccess = RawAccess::On(RawAccessLog::default()),
        /// How much the process says about itself, on stderr.
        level: RawLevel = RawLevel::Info,
    }
}

/// `access`
#[derive(Debug, Clone)]
pub(in crate::config) enum RawAccess {
    /// `false`
    Off,
    /// A table.
    On(RawAccessLog),
}

impl Shape for RawAccess {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        match node.value {
            Value::Boolean(false) => Some(Self::Off),
            Value::Table(_) => RawAccessLog::read(node, place, faults).map(Self::On),
            _ => {
                mismatch(node, place, "a table or false", faults);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": false }, RawAccessLog::schema()] })
    }
}

table! {
    /// The access log.
    RawAccessLog {
        /// stdout, stderr, or a file, relative to this one; it is reopened on SIGUSR1.
        to: String = "stdout".to_owned(),
        /// json, combined, or a template such as "{client} {status} {req.user-agent}".
        format: String = "json".to_owned(),
    }
}

words! {
    /// `level`
    RawLevel {
        "error" => Error,
        "warn" => Warn,
        "info" => Info,
        "debug" => Debug,
    }
}

table! {
    /// In-process demo origins, for the first start only.
    RawDemo {
        /// How many.
        origins: Int<1, 16> [required],
        /// The first one's port on 127.0.0.1; the others take those that follow. Pools name them like any other.
        port: Int<1, 65_000> = Int(9101),
    }
}
