//! `[rewrite.NAME]`.

use super::Validation;
use crate::config::model::RewriteConfig;
use crate::config::raw::{
    RawDeltaCoding, RawDictionaries, RawElement, RawFamilies, RawLazy, RawLink, RawOnError, RawRewrite, RawRewriteLevel,
};
use crate::config::shape::{Given, Place, Setting};
use crate::policy::dictionary::{DeltaCoding, DictionaryParams};
use crate::policy::filter::{Filter, Filters};
use crate::policy::links::{self, LinkRule, Links};
use crate::policy::page::{DeferParams, LazyParams, PageFilters};
use crate::policy::rewrite::{ElementAction, ElementRule, OnError, RewriteParams};

/// An action and where it stands, by which actions are ordered.
type Placed = (usize, ElementAction);

impl Validation<'_> {
    /// One rewrite policy.
    pub(super) fn rewrite(&mut self, name: &str, raw: &Given<RawRewrite>) -> RewriteConfig {
        let level = match raw.level.value {
            RawRewriteLevel::Off => Filters::default(),
            RawRewriteLevel::Safe => Filters::safe(),
        };
        let dict = raw.dict.given();
        let given = dict.map(|_| Filter::Dict);
        let named = raw.filters.values().map(|filter| filter.0).chain(given).fold(level, Filters::with);
        let filters = raw.forbid.values().map(|filter| filter.0).fold(named, Filters::without);
        let on_error = match raw.on_error.value {
            RawOnError::Pass => OnError::Pass,
            RawOnError::Fail => OnError::Fail,
        };
        let debug_key = raw.debug.given().and_then(|debug| debug.key_file.given()).and_then(|file| self.token(file));
        let links = self.links(raw);
        let pages = self.pages(raw, filters);
        let elements = raw.element.0.iter().map(|rule| self.element(rule)).collect();
        let elements_at = raw.element.0.iter().map(|rule| rule.place.at.clone()).collect();
        let dictionaries = dict.map_or_else(DictionaryParams::default, |dict| self.dictionaries(dict));
        let params = RewriteParams { elements, links, pages, on_error, filters, debug_key, dictionaries };
        RewriteConfig { name: name.to_owned(), params, elements_at }
    }

    fn dictionaries(&mut self, raw: &RawDictionaries) -> DictionaryParams {
        let RawFamilies::Auto = raw.families.value;
        let mut codings: Vec<DeltaCoding> = Vec::new();
        for coding in &raw.codings.0 {
            let known = match coding.value {
                RawDeltaCoding::Dcz => DeltaCoding::Dcz,
                RawDeltaCoding::Dcb => DeltaCoding::Dcb,
            };
            if codings.contains(&known) {
                self.faults.push(coding.place.fault("is listed twice", "the order says which is preferred"));
            }
            codings.push(known);
        }
        DictionaryParams { codings, keep: raw.keep.0 as usize }
    }

    fn element(&mut self, raw: &Given<RawElement>) -> ElementRule {
        let mut actions = self.attribute_actions(raw);
        let mut content = |key: &Setting<String>, action: fn(String) -> ElementAction| {
            actions.extend(key.given().map(|html| (html.place.at.start(), action(html.value.clone()))));
        };
        content(&raw.append, ElementAction::Append);
        content(&raw.prepend, ElementAction::Prepend);
        content(&raw.before, ElementAction::Before);
        content(&raw.after, ElementAction::After);
        content(&raw.replace_with, ElementAction::ReplaceWith);
        content(&raw.inner, ElementAction::Inner);
        for (key, action) in [(&raw.remove, ElementAction::Remove), (&raw.unwrap, ElementAction::Unwrap)] {
            actions.extend(key.given().filter(|key| key.value).map(|key| (key.place.at.start(), action)));
        }
        if actions.is_empty() {
            let help = "add replace, set, unset, append, prepend, before, after, replace_with, inner, remove or unwrap";
            self.faults.push(raw.place.fault("does nothing", help));
        }
        actions.sort_by_key(|(position, _)| *position);
        ElementRule {
            select: raw.select.given().map(|select| select.value.0.clone()).unwrap_or_default(),
            actions: actions.into_iter().map(|(_, action)| action).collect(),
            once: raw.once.value,
            unless: raw.unless.given().map(|unless| unless.value.0.clone()),
        }
    }

    /// The filters that change pages. A table of a filter that is off is a fault: it would do nothing.
    fn pages(&mut self, raw: &RawRewrite, filters: Filters) -> PageFilters {
        let mut unused = |filter: Filter, place: Option<&Place>| {
            if let Some(place) = place.filter(|_| !filters.contains(filter)) {
                let help = format!("add \"{}\" to filters, or remove it", filter.token());
                self.faults.push(place.fault("does nothing", help));
            }
        };
        unused(Filter::Lazy, raw.lazy.given().map(|lazy| &lazy.place));
        unused(Filter::ThirdPartyDefer, raw.third_party_defer.given().map(|defer| &defer.place));
        let standard = RawLazy::default();
        let lazy = raw.lazy.given().map_or(&standard, |lazy| &lazy.value);
        let lazy = LazyParams { first: u64::try_from(lazy.images.0).unwrap_or_default(), bytes: lazy.bytes.0 };
        let defer = filters.contains(Filter::ThirdPartyDefer).then(|| self.deferred(raw)).flatten();
        PageFilters { lazy: filters.contains(Filter::Lazy).then_some(lazy), defer }
    }

    fn deferred(&mut self, raw: &RawRewrite) -> Option<DeferParams> {
        let Some(defer) = raw.third_party_defer.given() else {
            let named = raw.filters.0.iter().find(|filter| filter.value.0 == Filter::ThirdPartyDefer);
            if let Some(named) = named {
                let help = "add third-party-defer = { hosts = [\"tags.example\"] }";
                self.faults.push(named.place.fault("third-party-defer does not know whose scripts are meant", help));
            }
            return None;
        };
        let hosts = defer.hosts.given()?.0.iter().filter_map(|host| self.host_pattern(host)).collect();
        Some(DeferParams { hosts })
    }

    fn links(&mut self, raw: &RawRewrite) -> Links {
        let moves: Vec<_> = raw.links.0.iter().filter_map(|rule| self.moved(rule)).collect();
        let secure: Vec<_> = raw.https.0.iter().filter_map(|host| self.secure(host)).collect();
        Links::new(moves.into_iter().chain(secure).collect()).unwrap_or_else(|again| {
            let ends = |rule: &&Given<RawLink>| {
                let to = rule.to.given().map(|to| to.trim_end_matches('/'));
                matches!(&again, LinkRule::Move { to: wanted, .. } if to == Some(wanted))
            };
            if let Some(rule) = raw.links.0.iter().find(ends) {
                self.faults.push(rule.place.fault("leads to what a rule would change again", "name where it ends"));
            }
            Links::default()
        })
    }

    fn secure(&mut self, host: &Given<String>) -> Option<LinkRule> {
        self.host_pattern(host).map(LinkRule::Secure)
    }

    /// A host's name, or `*.NAME`, lower case.
    fn host_pattern(&mut self, host: &Given<String>) -> Option<String> {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if !is_name {
            let what = format!("must be a host, got {:?}", host.value);
            self.faults.push(host.place.fault(what, "write its name, or *.NAME for all below one"));
        }
        is_name.then(|| host.to_ascii_lowercase())
    }

    fn moved(&mut self, raw: &Given<RawLink>) -> Option<LinkRule> {
        let (from, to) = (raw.from.given()?, raw.to.given()?);
        let place = links::Place::parse(from);
        if place.is_none() {
            let help = "write it like \"http://old.example\", without a query";
            self.faults.push(from.place.fault(format!("must be an absolute URL, got {:?}", from.value), help));
        }
        if to.value != "/" && links::Place::parse(to).is_none() {
            let help = "write it like \"https://new.example\", without a query; \"/\" is the site's own root";
            self.faults.push(to.place.fault(format!("must be an absolute URL, got {:?}", to.value), help));
            return None;
        }
        Some(LinkRule::Move { from: place?, to: to.trim_end_matches('/').to_owned() })
    }

    fn attribute_actions(&mut self, raw: &RawElement) -> Vec<Placed> {
        let mut actions: Vec<Placed> = Vec::new();
        if let Some(replace) = raw.replace.given() {
            if let Some(from) = replace.from.given().filter(|from| from.is_empty()) {
                self.faults.push(from.place.fault("must not be empty", "to give an attribute a value, use set"));
            }
            let text = |key: &Setting<String>| key.given().map(|key| key.value.clone()).unwrap_or_default();
            let action = ElementAction::Replace {
                attribute: self.attribute(&replace.attribute),
                from: text(&replace.from),
                to: text(&replace.to),
            };
            actions.push((replace.place.at.start(), action));
        }
        for (name, value) in raw.set.given().map_or(&[][..], |map| &map.0) {
            let start = name.place.at.start();
            let name = self.attribute(&Setting::Given(name.clone()));
            actions.push((start, ElementAction::Set { name, value: value.value.clone() }));
        }
        if let Some(unset) = raw.unset.given() {
            for name in &unset.0 {
                let name = Setting::Given(name.clone());
                actions.push((unset.place.at.start(), ElementAction::Unset(self.attribute(&name))));
            }
        }
        actions
    }

    /// An attribute's name, lower case as HTML compares them.
    fn attribute(&mut self, raw: &Setting<String>) -> String {
        let Some(name) = raw.given() else { return String::new() };
        let refused =
            |c: char| c.is_ascii_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '>' | '/' | '=' | '<');
        if name.is_empty() || name.contains(refused) {
            self.faults.push(name.place.fault(format!("must be the name of an attribute, got {:?}", name.value), ""));
        }
        name.to_ascii_lowercase()
    }
}
