//! The `tidegate` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// An exchange allocates a few dozen small blocks and frees them on the same thread, which is what this allocator is
/// quick at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}
