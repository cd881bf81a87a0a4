//! Names of entries, and what refers to them.

use crate::config::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::config::shape::{Given, Map, Setting};
use crate::config::units::Name;

use super::Validation;

/// The entries of one kind, in file order.
pub(super) struct Names {
    /// `pool`
    kind: &'static str,
    /// `None` = an entry whose name could not be read.
    entries: Vec<Option<Given<String>>>,
    used: Vec<bool>,
}

impl Names {
    /// The names of an array of tables; reports those that stand twice, pointing at both places.
    pub(super) fn of(
        kind: &'static str,
        names: impl Iterator<Item = Option<Given<String>>>,
        validation: &mut Validation<'_>,
    ) -> Self {
        let entries: Vec<Option<Given<String>>> = names.collect();
        for (index, name) in entries.iter().enumerate() {
            let Some(name) = name else { continue };
            let earlier = entries.iter().take(index).flatten().find(|earlier| earlier.value == name.value);
            if let Some(earlier) = earlier {
                let fault = name.place.fault("is taken", "give each its own name");
                validation.faults.push(fault.related(&earlier.place.at, "first defined here"));
            }
        }
        Self { kind, used: vec![false; entries.len()], entries }
    }

    /// The keys of a table of named entries, which the language keeps unique.
    pub(super) fn of_map<T>(kind: &'static str, map: &Setting<Map<T>>, validation: &mut Validation<'_>) -> Self {
        let entries: Vec<_> =
            map.given().map_or_else(Vec::new, |map| map.0.iter().map(|(name, _)| Some(name.clone())).collect());
        for name in entries.iter().flatten() {
            if let Some(refused) = Name::refused(name) {
                validation.faults.push(name.place.fault(format!("the name {}", refused.what), refused.help));
            }
        }
        Self { kind, used: vec![false; entries.len()], entries }
    }

    /// Position of the entry that `name` refers to; a name that nothing defines is reported.
    pub(super) fn resolve(&mut self, name: &Given<Name>, validation: &mut Validation<'_>) -> Option<usize> {
        let found =
            self.entries.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.value == name.value.0));
        if let Some(used) = found.and_then(|index| self.used.get_mut(index)) {
            *used = true;
        } else if validation.complete {
            let known = self.entries.iter().flatten().map(|entry| entry.value.as_str());
            let what = format!("= {:?} names no {}", name.value.0, self.described());
            let help =
                if self.entries.is_empty() { "none is defined".to_owned() } else { suggest(&name.value.0, known) };
            validation.faults.push(name.place.fault(what, help));
        }
        found
    }

    /// The kind in words.
    fn described(&self) -> String {
        match self.kind {
            "cache" | "rewrite" | "compress" => format!("{} policy", self.kind),
            kind => kind.to_owned(),
        }
    }

    /// Warns about entries that nothing refers to.
    pub(super) fn warn_unused(&self, faults: &mut Diagnostics) {
        for (name, _) in self.entries.iter().zip(&self.used).filter(|(_, used)| !**used) {
            let Some(name) = name else { continue };
            let what = format!("{} {:?} is used by no route", self.kind, name.value);
            let help = format!("add {} = {:?} to a route, or remove it", self.kind, name.value);
            faults.push(Diagnostic::warning(&name.place.at, what, help));
        }
    }
}
