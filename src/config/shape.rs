//! How a [`Node`] becomes a value: the [`Shape`] that everything in a file has, and what is common to all of them.
//!
//! Reading never stops at a fault. A value that could not be read is [`Setting::Broken`], so that what follows knows
//! that the operator did write something there and keeps silent about it.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::diagnostics::{Diagnostic, Diagnostics, suggest};
use super::source::Location;
use super::tree::{Entry, Node, Table, Value};

/// Something that can be read from a [`Node`].
pub(super) trait Shape: Sized {
    /// Reads `node`, or reports why not.
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self>;

    /// What it may be, as JSON Schema.
    fn schema() -> Json;

    /// The value as it would be written in a file; null where there is no short way to say it.
    fn show(&self) -> Json {
        Json::Null
    }
}

/// Where a value stands, in the file and in words: `pool "web" endpoint 2`, `weight`.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) at: Location,
    /// The entry it belongs to; empty for what belongs to none.
    entry: Arc<str>,
    /// Dotted path below the entry; empty for the entry itself.
    key: Arc<str>,
}

impl Place {
    /// The whole file.
    pub(super) fn root(at: &Location) -> Self {
        Self { at: at.clone(), ..Self::default() }
    }

    /// A key of this table.
    pub(super) fn key(&self, key: &str, at: &Location) -> Self {
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Self { at: at.clone(), entry: self.entry.clone(), key: key.into() }
    }

    /// An item of this array, or a named table of this one: an entry of its own if it is a table.
    fn item(&self, name: &str, node: &Node) -> Self {
        if !matches!(node.value, Value::Table(_)) {
            let key = format!("{} {name}", self.key);
            return Self { at: node.at.clone(), entry: self.entry.clone(), key: key.into() };
        }
        let (outer, last) = self.key.rsplit_once('.').unwrap_or(("", &self.key));
        let singular = if last.ends_with("ss") { last } else { last.strip_suffix('s').unwrap_or(last) };
        let item = format!("{singular} {name}");
        let entry = [&*self.entry, outer, &item].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        Self { at: node.at.clone(), entry: entry.join(" ").into(), key: Arc::default() }
    }

    /// `pool "web": panic must be …`; `what` is a predicate where there is a key, else a sentence.
    pub(super) fn says(&self, what: &str) -> String {
        match (&*self.entry, &*self.key) {
            ("", "") => what.to_owned(),
            ("", key) => format!("{key} {what}"),
            (entry, "") => format!("{entry}: {what}"),
            (entry, key) => format!("{entry}: {key} {what}"),
        }
    }

    /// An error here.
    pub(super) fn fault(&self, what: impl AsRef<str>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.at, self.says(what.as_ref()), help)
    }

    /// A warning here.
    pub(super) fn warning(&self, what: impl AsRef<str>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(&self.at, self.says(what.as_ref()), help)
    }
}

/// A value that is there: written in a file, or the default of its key.
#[derive(Debug, Clone, Default)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: Place,
    /// False for a default.
    pub(super) written: bool,
}

impl<T> std::ops::Deref for Given<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A key that may be absent.
#[derive(Debug, Clone, Default)]
pub(super) enum Setting<T> {
    /// Not written.
    #[default]
    Absent,
    /// Written, but it could not be read, or was required and is not there; reported.
    Broken,
    /// Written and read.
    Given(Given<T>),
}

impl<T> Setting<T> {
    /// The value, if it was written and could be read.
    pub(super) fn given(&self) -> Option<&Given<T>> {
        match self {
            Self::Given(given) => Some(given),
            Self::Absent | Self::Broken => None,
        }
    }

    /// The same by value.
    fn into_given(self) -> Option<Given<T>> {
        match self {
            Self::Given(given) => Some(given),
            Self::Absent | Self::Broken => None,
        }
    }

    /// False when the operator wrote the key, whatever became of it.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Reads an entry; keeps silent about what was reported already.
fn read_node<T: Shape>(node: &Node, place: Place, faults: &mut Diagnostics) -> Setting<T> {
    if matches!(node.value, Value::Broken) {
        return Setting::Broken;
    }
    T::read(node, &place, faults).map_or(Setting::Broken, |value| Setting::Given(Given { value, place, written: true }))
}

/// Reports that `node` is not what is `wanted` ("a string").
pub(super) fn mismatch(node: &Node, place: &Place, wanted: &str, faults: &mut Diagnostics) {
    faults.push(place.fault(format!("must be {wanted}, got {}", node.shown()), ""));
}

/// A table being read key by key.
pub(super) struct Keys<'a> {
    table: &'a Table,
    place: &'a Place,
}

impl<'a> Keys<'a> {
    /// The table at `node`, its keys compared with what is `known` and what comes `later`.
    pub(super) fn open(
        node: &'a Node,
        place: &'a Place,
        known: &[&str],
        later: &[&str],
        faults: &mut Diagnostics,
    ) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            mismatch(node, place, "a table", faults);
            return None;
        };
        for Entry { key, key_at, .. } in table.0.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let at = place.key(key, key_at);
            faults.push(if later.contains(&key.as_str()) {
                at.fault("is not supported yet", "remove it")
            } else {
                at.fault("is not a known key", suggest(key, known.iter().chain(later).copied()))
            });
        }
        Some(Self { table, place })
    }

    /// A key that may be absent.
    pub(super) fn optional<T: Shape>(&self, key: &str, faults: &mut Diagnostics) -> Setting<T> {
        self.table
            .get(key)
            .map_or(Setting::Absent, |entry| read_node(&entry.node, self.place.key(key, &entry.node.at), faults))
    }

    /// A key that must be there.
    pub(super) fn required<T: Shape>(&self, key: &str, faults: &mut Diagnostics) -> Setting<T> {
        let setting = self.optional(key, faults);
        if setting.is_absent() {
            faults.push(self.place.key(key, &self.place.at).fault("is missing", format!("add {key} = …")));
            return Setting::Broken;
        }
        setting
    }

    /// A key with a default, which also stands in for a value that could not be read.
    pub(super) fn preset<T: Shape>(&self, key: &str, default: T, faults: &mut Diagnostics) -> Given<T> {
        match self.optional(key, faults) {
            Setting::Given(given) => given,
            Setting::Absent | Setting::Broken => {
                Given { value: default, place: self.place.key(key, &self.place.at), written: false }
            }
        }
    }

    /// A table whose keys have defaults.
    pub(super) fn nested<T: Shape + Default>(&self, key: &str, faults: &mut Diagnostics) -> T {
        let absent = Node { at: self.place.at.clone(), value: Value::Table(Table::default()) };
        let node = self.table.get(key).map_or(&absent, |entry| &entry.node);
        let given = read_node(node, self.place.key(key, &node.at), faults).into_given();
        given.map(|given| given.value).unwrap_or_default()
    }
}

/// An array of at least MIN items.
#[derive(Debug, Clone)]
pub(super) struct List<T, const MIN: usize = 0>(pub(super) Vec<Given<T>>);

impl<T, const MIN: usize> Default for List<T, MIN> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MIN: usize> List<T, MIN> {
    /// Items that stand in no file, for a default.
    pub(super) fn of(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().map(|value| Given { value, place: Place::default(), written: false }).collect())
    }

    /// The items without their places.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|given| &given.value)
    }
}

impl<T: Shape, const MIN: usize> Shape for List<T, MIN> {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        let Value::Array(items) = &node.value else {
            let help = match node.value {
                Value::Table(_) => format!("write [[{0}]], or {0} = [{{ … }}]", place.key),
                _ => format!("write [{}]", node.shown()),
            };
            faults.push(place.fault(format!("must be an array, got {}", node.shown()), help));
            return None;
        };
        if items.len() < MIN {
            faults.push(place.fault("must not be empty", ""));
        }
        let read = |(index, item): (usize, &Node)| {
            let name = name_of(item).map_or_else(|| (index + 1).to_string(), |name| format!("{name:?}"));
            read_node(item, place.item(&name, item), faults).into_given()
        };
        Some(Self(items.iter().enumerate().filter_map(read).collect()))
    }

    fn schema() -> Json {
        let schema = json!({ "type": "array", "items": T::schema() });
        if MIN > 0 { super::table::with(schema, "minItems", json!(MIN)) } else { schema }
    }

    fn show(&self) -> Json {
        self.values().map(Shape::show).collect()
    }
}

/// `name` of an entry, by which it is spoken of.
fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(table) = &node.value else { return None };
    match &table.get("name")?.node.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

/// A table whose keys are the operator's, in file order.
#[derive(Debug, Clone)]
pub(super) struct Map<T>(pub(super) Vec<(Given<String>, Given<T>)>);

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Shape> Shape for Map<T> {
    fn read(node: &Node, place: &Place, faults: &mut Diagnostics) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            mismatch(node, place, "a table", faults);
            return None;
        };
        let read = |Entry { key, key_at, node }: &Entry| {
            let inner = match &node.value {
                Value::Table(_) => place.item(&format!("{key:?}"), node),
                _ => place.key(key, &node.at),
            };
            let place = Place { at: key_at.clone(), ..inner.clone() };
            let name = Given { value: key.clone(), place, written: true };
            Some((name, read_node(node, inner, faults).into_given()?))
        };
        Some(Self(table.0.iter().filter_map(read).collect()))
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// Text of `node` through `parse`, which says what it wants and what may help when the text will not do.
pub(super) fn read_text<T>(
    node: &Node,
    place: &Place,
    faults: &mut Diagnostics,
    parse: impl FnOnce(&str) -> Result<T, Refused>,
) -> Option<T> {
    let Value::Text(text) = &node.value else {
        mismatch(node, place, "a string", faults);
        return None;
    };
    parse(text).map_err(|Refused { what, help }| faults.push(place.fault(what, help))).ok()
}

/// Why a text will not do: a predicate (`must be …`) and a remedy, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) what: String,
    pub(super) help: String,
}

impl Refused {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}
