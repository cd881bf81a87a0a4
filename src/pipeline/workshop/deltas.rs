//! Dictionaries and what is coded against them. First deltas are made at once, for a client that waits a moment for them;
//! one that is in demand is made again at its strongest level, behind everything else.

use std::sync::{Arc, Weak};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::{Books, Order, Workshop, decoded};
use crate::policy::dictionary::BODY_MIN;
use crate::policy::optimise::{Made, is_gain};
use crate::store::{Base, ChildKind, DeltaRecord, Dictionaries, Dictionary, Life};
use crate::transform::delta;

/// Work on dictionaries.
#[derive(Debug)]
pub(in crate::pipeline) enum Job {
    /// Keep the bytes of this response, as the optimisers with this fingerprint made them, as a version of their file.
    Pin { life: Weak<Life>, rules: u64, family: u128, shelf: Weak<Dictionaries>, keep: usize },
    /// Make this delta of a response; `strong`: better than it is.
    Make { life: Weak<Life>, record: Arc<DeltaRecord>, dictionary: Arc<Dictionary>, strong: bool },
}

impl Workshop {
    /// Asks for a job, of the thread that clients wait for unless it is one of great effort. Never waits; false where too
    /// many wait already.
    pub(in crate::pipeline) fn deltas(&self, job: Job) -> bool {
        let patient = matches!(job, Job::Make { strong: true, .. });
        let orders = if patient { &self.orders } else { &self.prompt };
        self.order(orders, Order::Deltas(job))
    }
}

impl Books {
    pub(super) fn deltas(&self, job: Job) {
        match job {
            Job::Pin { life, rules, family, shelf, keep } => {
                let _panicked = self.guarded(|| self.pin(&life, rules, family, (&shelf, keep)));
            }
            Job::Make { life, record, dictionary, strong } => {
                let made = self.guarded(|| self.make_delta(&life, &record, &dictionary, strong));
                match made.unwrap_or(Made::Nothing) {
                    // What is there already stays.
                    Made::Nothing if strong => {}
                    made => record.settle(made),
                }
                if let (true, Made::Child { .. }, Some(life)) = (strong, record.made(), life.upgrade()) {
                    let fast = kind(&record, record.delta().coding.fast_level());
                    if record.made() != (Made::Child { level: fast.level, rules: fast.rules }) {
                        self.store.discard_child(&life, fast);
                    }
                }
            }
        }
    }

    /// The body of a response, decoded, as the optimisers with this fingerprint made it.
    fn body(&self, base: &Base, rules: u64) -> Option<Bytes> {
        if rules == 0 {
            return decoded(base);
        }
        let child = self.store.child(base.life(), ChildKind { coding: None, level: 0, rules, delta: None })?;
        child.body().chunks().first().cloned()
    }

    fn pin(&self, life: &Weak<Life>, rules: u64, family: u128, (shelf, keep): (&Weak<Dictionaries>, usize)) {
        let (Some(life), Some(shelf)) = (life.upgrade(), shelf.upgrade()) else { return };
        let Some(base) = self.store.base(&life) else { return };
        let Some(body) = self.body(&base, rules) else { return self.count("dictionary", "unreadable") };
        if (body.len() as u64) < BODY_MIN {
            return self.count("dictionary", "too_small");
        }
        let Some(&digest) = digest(&SHA256, &body).as_ref().first_chunk() else { return };
        match self.store.pin((&shelf, keep), (&base, rules), family, (body, digest)) {
            Ok(()) => self.count("dictionary", "kept"),
            Err(reason) => self.count("dictionary", reason.token()),
        }
    }

    fn make_delta(&self, life: &Weak<Life>, record: &DeltaRecord, dictionary: &Dictionary, strong: bool) -> Made {
        let Some(life) = life.upgrade() else { return Made::Nothing };
        let Some(base) = self.store.base(&life) else { return Made::Nothing };
        let Some(body) = self.body(&base, record.rules()) else { return Made::Unasked };
        let coding = record.delta().coding;
        let level = if strong { coding.strong_level() } else { coding.fast_level() };
        let against = delta::Dictionary { bytes: dictionary.bytes(), digest: dictionary.digest() };
        let made = match delta::make(coding, level, against, &body) {
            Ok(made) => Bytes::from(made),
            Err(refusal) => {
                self.count(coding.token(), refusal.token());
                return Made::Nothing;
            }
        };
        let now = if strong { self.size_of(&life, record) } else { self.smallest(&base) };
        if !is_gain(now, made.len() as u64) {
            self.count(coding.token(), "no_gain");
            return Made::Nothing;
        }
        match self.store.adopt(&life, kind(record, level), made) {
            Ok(_child) => {
                self.count(coding.token(), "made");
                Made::Child { level, rules: record.rules() }
            }
            Err(reason) => {
                self.count(coding.token(), reason.token());
                Made::Nothing
            }
        }
    }

    /// Bytes of the delta that clients get now.
    fn size_of(&self, life: &Life, record: &DeltaRecord) -> u64 {
        let Made::Child { level, .. } = record.made() else { return u64::MAX };
        self.store.child(life, kind(record, level)).map_or(u64::MAX, |child| child.body().remaining())
    }

    /// Bytes of the smallest body that clients without a dictionary get.
    fn smallest(&self, base: &Base) -> u64 {
        let children = self.store.children(base.life());
        let ordinary = children.iter().filter(|(kind, _)| kind.delta.is_none());
        let smallest = ordinary.map(|(_, child)| child.body().remaining()).min();
        smallest.map_or(base.body().remaining(), |smallest| smallest.min(base.body().remaining()))
    }
}

fn kind(record: &DeltaRecord, level: u8) -> ChildKind {
    ChildKind { coding: None, level, rules: record.rules(), delta: Some(record.delta()) }
}
