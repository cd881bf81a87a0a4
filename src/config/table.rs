//! What a table may hold, said once: the [`table!`] macro makes from one list of keys the struct, its reader, its
//! "did you mean", and its part of `schema.json`. They cannot disagree.
//!
//! A key is written as it is in the file, with its documentation and its type, which carries unit and bounds:
//!
//! ```text
//! weight: Int<0, 1000> = Int(1),      // has a default: read as Given<_>, always there
//! address: Address [required],        // reported when absent: read as Setting<_>
//! max_connections: Int<1, 1_000_000>, // may be absent: read as Setting<_>
//! health: RawHealth,                  // a table that may be absent
//! timeouts: RawTimeouts [nested],     // a table whose keys have defaults: read as RawTimeouts, always there
//! a_b as "a-b": RawAb,                // a key whose name is no identifier
//! ```
//!
//! Keys under `later` belong to the contract but are not built: they are rejected with words of their own, never
//! ignored. [`words!`] does the same for the values of a key.

use serde_json::{Value as Json, json};

use super::diagnostics::{did_you_mean, nearest};
use super::shape::Refused;

/// Makes a table: see the module.
macro_rules! table {
    (
        $(#[doc = $about:literal])*
        $Name:ident {
            $( $(#[doc = $doc:literal])* $key:ident $(as $name:literal)? : $Shape:ty $([$how:ident])? $(= $default:expr)? , )*
        }
        $(later { $($later:literal),* $(,)? })?
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone)]
        pub(in crate::config) struct $Name {
            $( $(#[doc = $doc])* pub(in crate::config) $key: table!(@type $Shape $([$how])? $(= $default)?), )*
        }

        impl $crate::config::shape::Shape for $Name {
            fn read(
                node: &$crate::config::tree::Node,
                place: &$crate::config::shape::Place,
                faults: &mut $crate::config::diagnostics::Diagnostics,
            ) -> Option<Self> {
                let known = [$(table!(@key $key $($name)?)),*];
                let later = [$($($later),*)?];
                let keys = $crate::config::shape::Keys::open(node, place, &known, &later, faults)?;
                Some(Self {
                    $( $key: table!(@read keys, table!(@key $key $($name)?), faults, $Shape $([$how])? $(= $default)?), )*
                })
            }

            fn schema() -> serde_json::Value {
                let mut properties = serde_json::Map::new();
                $(
                    let schema = <$Shape as $crate::config::shape::Shape>::schema();
                    let default = table!(@show $Shape $(= $default)?);
                    let described = $crate::config::table::key_schema(schema, &[$($doc),*], default);
                    properties.insert(table!(@key $key $($name)?).to_owned(), described);
                )*
                let required: &[&str] = &[$($(table!(@name $how $key),)?)*];
                let required: Vec<&str> = required.iter().copied().filter(|key| !key.is_empty()).collect();
                serde_json::json!({
                    "type": "object",
                    "description": $crate::config::table::paragraph(&[$($about),*]),
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $( $key: table!(@absent $Shape $([$how])? $(= $default)?), )* }
            }
        }
    };
    (@key $key:ident) => { stringify!($key) };
    (@key $key:ident $name:literal) => { $name };
    (@type $Shape:ty) => { $crate::config::shape::Setting<$Shape> };
    (@type $Shape:ty = $default:expr) => { $crate::config::shape::Given<$Shape> };
    (@type $Shape:ty [required]) => { $crate::config::shape::Setting<$Shape> };
    (@type $Shape:ty [nested]) => { $Shape };
    (@read $keys:ident, $key:expr, $faults:ident, $Shape:ty) => { $keys.optional::<$Shape>($key, $faults) };
    (@read $keys:ident, $key:expr, $faults:ident, $Shape:ty [required]) => { $keys.required::<$Shape>($key, $faults) };
    (@read $keys:ident, $key:expr, $faults:ident, $Shape:ty = $default:expr) => { $keys.preset::<$Shape>($key, $default, $faults) };
    (@read $keys:ident, $key:expr, $faults:ident, $Shape:ty [nested]) => { $keys.nested::<$Shape>($key, $faults) };
    (@show $Shape:ty) => { serde_json::Value::Null };
    (@show $Shape:ty = $default:expr) => { <$Shape as $crate::config::shape::Shape>::show(&$default) };
    (@absent $Shape:ty $([$how:ident])?) => { Default::default() };
    (@absent $Shape:ty = $default:expr) => {
        $crate::config::shape::Given { value: $default, place: $crate::config::shape::Place::default(), written: false }
    };
    (@name required $key:ident) => { stringify!($key) };
    (@name nested $key:ident) => { "" };
}

/// Makes a closed list of words: the enum, its reader and its schema. Words under `later` are not supported yet.
macro_rules! words {
    (
        $(#[doc = $about:literal])*
        $Name:ident { $( $word:literal => $Variant:ident, )* }
        $(later { $($later:literal),* $(,)? })?
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::config) enum $Name {
            $( #[doc = concat!("`", $word, "`")] $Variant, )*
        }

        impl $crate::config::shape::Shape for $Name {
            fn read(
                node: &$crate::config::tree::Node,
                place: &$crate::config::shape::Place,
                faults: &mut $crate::config::diagnostics::Diagnostics,
            ) -> Option<Self> {
                $crate::config::shape::read_text(node, place, faults, |text| match text {
                    $( $word => Ok(Self::$Variant), )*
                    other => Err($crate::config::table::refuse_word(other, &[$($word),*], &[$($($later),*)?])),
                })
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "enum": [$($word),*] })
            }

            fn show(&self) -> serde_json::Value {
                match self { $( Self::$Variant => serde_json::json!($word), )* }
            }
        }
    };
}

pub(super) use {table, words};

/// One key of a table's schema; doc comments come line by line.
pub(super) fn key_schema(schema: Json, doc: &[&str], default: Json) -> Json {
    let described = with(schema, "description", json!(paragraph(doc)));
    if default.is_null() { described } else { with(described, "default", default) }
}

/// The object with one more member.
pub(super) fn with(mut object: Json, member: &str, value: Json) -> Json {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
    object
}

/// The lines of a doc comment as one paragraph, without the marks of Markdown.
pub(super) fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").replace('`', "")
}

/// `"a", "b" or "c"`
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Why `word` is not one of `known`.
pub(super) fn refuse_word(word: &str, known: &[&str], later: &[&str]) -> Refused {
    let listed = one_of(known);
    if later.contains(&word) {
        return Refused::new(format!("= {word:?} is not supported yet"), format!("use {listed}"));
    }
    let help = nearest(word, known.iter().chain(later).copied()).map(did_you_mean).unwrap_or_default();
    Refused::new(format!("must be {listed}, got {word:?}"), help)
}
