//! Single pieces by themselves: what they cost in time and in allocations.
//!
//! ```text
//! cargo bench --bench micro                 everything
//! cargo bench --bench micro exchange        what has "exchange" in its name
//! ```
//!
//! Times drift with the machine: compare two builds by turns, and only the fastest column. Allocations do not drift; those
//! of an exchange are the figure to watch.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]

mod exchange;
mod policy;
mod store;
mod transform;

use divan::AllocProfiler;
use mimalloc::MiMalloc;

/// The allocator of the program, counted.
#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}
