//! What may be made of a stored body off the request path, and what is remembered of it.
//!
//! An *optimiser* makes a smaller body that means the same. It works on a complete stored body, on a thread that no
//! client waits for; the first answers go without, later hits get the child. Private answers, parts, `no-transform` and
//! what cannot be decoded never get here: the first are not stored, the others [`decide`] turns away.
//!
//! The child of a base is keyed by (base, [`Optimiser::fingerprint`], coding, level). The fingerprint is the same on every
//! node and says in an entity-tag what was done, so that a tag can be read back by somebody who knows no configuration:
//! [`is_fingerprint`].
//!
//! Negative results are results: a body that did not get smaller, or that an optimiser refused, keeps its [`Made::Nothing`]
//! for its life. A filter that fails again and again on what one URL brings is left out there for a day: [`quarantine`].

mod decision;
mod optimiser;
pub mod quarantine;
mod recipe;

pub use decision::{NotOptimised, OptimiseFacts, decide};
pub use optimiser::{Optimiser, Optimisers, is_fingerprint, may_name_others};
pub use recipe::{BODY_MAX, Made, Recipe, is_gain, is_in_demand, strong_level};
