//! The integration tests: one binary, so that one link serves them all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its own functions as in its `#[test]`s"
)]
#![allow(unreachable_pub, reason = "in one binary `pub` means: for the other modules")]

// What the tests stand on.
mod support;

// The source itself: layers, banned words.
mod tidy;

// RFC 9112 and 9113: framing, what is refused, how bodies travel.
mod messaging;
// RFC 9110: what an intermediary adds, removes, refuses.
mod semantics;
// Certificates, resumption, client authentication, PROXY protocol.
mod tls;
// RFC 9111: what is stored and served again.
mod caching;
// The same as data: every case against the policy alone and over sockets.
mod cases;
// Many clients, one fetch, one encoding; who goes away, who falls behind.
mod collapsing;
// RFC 10008: questions with content.
mod querying;
// A thousand of them.
mod herd;
// RFC 9110 §14: parts, from the store and past it.
mod ranges;
// What is forgotten on demand, and by what.
mod purging;
// What would happen to a request, and that asking changes nothing.
mod explaining;
// RFC 5861: what is served although it is stale, and what is fetched behind it.
mod staleness;
// Content codings.
mod compressing;
// What is made of stored bodies in the background.
mod optimising;
// Compression dictionaries, RFC 9842.
mod dictionaries;
// Filters that change no body.
mod filters;
// What is done in the stream to pages and style sheets, case by case.
mod golden;
// Bodies that nobody should send.
mod hostile;
// Element rules.
mod rewriting;
// Which origin gets an exchange.
mod balancing;
// The policies of a farm by a seed: thousands of picks, failures, probes, reloads.
mod simulation;
// Probes by gRPC.
mod probing;
// Endpoints that are found: DNS that answers, lies or is silent, files that come and go.
mod discovery;
// What waits, what is refused, what is shed.
mod queueing;
// All of it at once, every body verified.
mod churn;
// What is spoken to the origins: HTTP/2, gRPC, tunnels.
mod protocols;
// A full store, for long: its bytes, the process's, and nobody's body mixed up.
mod soak;
// Edits of a running configuration.
mod reload;
// Bounds on what a client may send and how long it may take.
mod limits;
// Origins that are dead, slow, broken or lying; clients that go away.
mod faults;
// How long they may take, by pool and by route.
mod timeouts;
// Splits by client, mirrors, buffers on both sides.
mod traffic;
// Access log, metrics, status, an orderly end.
mod observing;
// Signals, users, sockets, second instances; what a reload may change.
mod operating;
// Files → configuration or faults, and the files that the project ships.
mod configuration;
// What the documents promise.
mod documents;
