//! DECIDE. Every rule of HTTP, caching, balancing and rewriting is a function here: facts and parameters in, a decision
//! with a named reason out.
//!
//! Nothing in this folder knows of tokio, hyper, locks, clocks, randomness, files or sockets; `now` and random numbers
//! are arguments. That is what lets thousands of cases run per second, and what lets `tidegate route`, `explain` and
//! the live path give the same answer: they call the same function.

pub mod adaptive;
pub mod admission;
pub mod balance;
pub mod base64;
pub mod cache;
pub mod debug;
pub mod dictionary;
pub mod discovery;
pub mod encoding;
pub mod fields;
pub mod filter;
pub mod grpc;
mod hash;
pub mod health;
pub mod hints;
pub mod immutable;
pub mod links;
pub mod mend;
pub mod mirror;
pub mod optimise;
pub mod own_tag;
pub mod page;
pub mod pool;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod split;
pub mod uri;
pub mod validators;
pub mod websocket;
