//! Tidegate: one process in front of a web farm that terminates TLS, caches, rewrites, compresses and balances.
//!
//! Tenets, in order: **correct, bounded, fast, plain**.
//!
//! # The way of one exchange
//!
//! ```text
//! socket ─► listener ─► driver ─► route ─► guard ─► lookup ─► forward ─► rewrite ─► fill ─► encode ─► respond ─► socket
//! ```
//!
//! [`listener`] reads a request and hands it to [`pipeline`], whose `mod.rs` is the only place where the order of the
//! stages is written. A stage gathers facts, asks [`policy`] (pure functions of facts, parameters and a given time) and
//! applies the decision with [`store`], [`upstream`] and [`transform`]. All of them decide by one [`snapshot`], which is
//! built from a validated [`config`] and swapped as a whole.
//!
//! # Who may use whom
//!
//! | folder | may use of ours | never |
//! |---|---|---|
//! | `clock` `error` | – | anything else of ours |
//! | `authority` | `error` | anything else of ours |
//! | `policy` | `authority` `clock` `error` | async, tokio, hyper, locks, clock reads, randomness, files, sockets, serde |
//! | `transform` | `policy` | async, tokio, hyper |
//! | `config` | `policy` `authority` | files, tokio, `snapshot`, run-time objects |
//! | `body` | `transform` `authority` `clock` `error` | `pipeline` `snapshot` `config` |
//! | `store` | `policy` `body` `clock` `error` | `upstream` `pipeline` `snapshot` `config` |
//! | `upstream` | `policy` `body` `clock` `error` | `store` `pipeline` `snapshot` `config` |
//! | `listener` | `body` `authority` `clock` `error` | `pipeline` `snapshot` `config` |
//! | `observe` | `policy` `clock` `error` | `pipeline` (it is given values) |
//! | `snapshot` | `config` `policy` `transform` `body` `store` `upstream` `listener` `observe` `clock` `error` | `pipeline` |
//! | `pipeline` | `snapshot` `policy` `transform` `body` `store` `upstream` `observe` `authority` `clock` `error` | `config` `listener` `notify`, files |
//! | `admin` `cli` `app` `main` | everything | – |
//!
//! `tests/it/tidy.rs` reads the sources and fails on what the second column does not have; the third says what is easily
//! thought of and must not be.
//!
//! # Invariants
//!
//! 1. `policy` and `transform` are pure.
//! 2. The order of stages is written only in `pipeline/mod.rs`.
//! 3. An exchange decides by exactly one snapshot.
//! 4. A body is streamed unless a named stage with a named limit buffers it.
//! 5. Every queue, buffer, cache, retry and wait has a bound, in config or in a constant with a reason.
//! 6. A cache fault never breaks a response; a rewrite fault never loses bytes; a log or metric fault never delays one.
//! 7. Errors become responses only in `pipeline/respond.rs`.
//! 8. A reload publishes a whole snapshot or nothing.
//! 9. `unsafe_code` is denied for the whole crate but one line of [`body`]: the mapping of a sealed file of memory.
//! 10. Hostile input gets a named reason, never a panic.

pub mod admin;
pub mod app;
pub mod authority;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod listener;
pub mod observe;
pub mod pipeline;
pub mod policy;
pub mod snapshot;
pub mod store;
pub mod transform;
pub mod upstream;
