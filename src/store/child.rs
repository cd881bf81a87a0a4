//! What is made from a stored response and kept beside it.

use super::base::body_bytes;
use super::deltas::MAX_DELTAS;
use super::ledger::Charge;
use crate::body::StoredBody;
use crate::policy::dictionary::Delta;
use crate::policy::encoding::Coding;

/// Most children of one base: three codings at a few levels and rule sets, its deltas, and one that takes the place of
/// another.
pub const MAX_CHILDREN: usize = 16 + MAX_DELTAS + 1;

/// What a child costs besides its text; see the base's.
pub(super) const OVERHEAD: u64 = 512;

/// What was done to the base's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChildKind {
    /// The content coding; `None` = an optimised body without one.
    pub coding: Option<Coding>,
    /// The encoder's level.
    pub level: u8,
    /// Fingerprint of the optimisers; 0 = none.
    pub rules: u64,
    /// Coded against a dictionary, in place of `coding`.
    pub delta: Option<Delta>,
}

impl ChildKind {
    /// The name of its coding; `None` = it has none.
    #[must_use]
    pub fn token(self) -> Option<&'static str> {
        self.delta.map(|delta| delta.coding.token()).or(self.coding.map(Coding::token))
    }
}

/// A complete body made from a base. It has no head: that is derived from the base's for each answer, so that freshening
/// the base freshens its children.
#[derive(Debug)]
pub struct Child {
    body: StoredBody,
    charge: Charge,
}

impl Child {
    pub(super) fn new(body: StoredBody, charge: Charge) -> Self {
        Self { body, charge }
    }

    /// The body; a clone of it is a reader.
    #[must_use]
    pub fn body(&self) -> &StoredBody {
        &self.body
    }

    /// Bytes it takes, overhead included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        OVERHEAD + body_bytes(&self.body)
    }

    /// The entry in the books.
    pub(super) fn entry(&self) -> &Charge {
        &self.charge
    }

    /// Gives its bytes back when moka has let go of it.
    pub(super) fn retire(&self) {
        self.charge.release();
    }
}
