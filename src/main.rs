//! The `tidegate` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// An exchange allocates a few dozen small blocks and frees them on the same thread, which is what this allocator is
/// quick at: with glibc's a hit takes 3 % more instructions and a pass-through 6 %. A full store stays within its bound of
/// resident memory with either (`tests/it/soak.rs`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}
