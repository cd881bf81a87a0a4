//! Name patterns of the configuration: literal text in which `*` stands for any run of characters.

/// True when `pattern` matches the whole of `name`. Cost: no allocation; at worst their lengths multiplied.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(prefix) else { return false };
    let mut pieces = rest.split('*');
    let suffix = pieces.next_back().unwrap_or_default();
    for piece in pieces {
        // The leftmost place is always good enough: what follows is found further right or not at all.
        let Some(at) = name.find(piece) else { return false };
        name = name.get(at + piece.len()..).unwrap_or_default();
    }
    name.ends_with(suffix)
}

/// True when any of `patterns` matches `name`.
#[must_use]
pub fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_any_run() {
        for (pattern, name, expected) in [
            ("utm_*", "utm_source", true),
            ("utm_*", "utm_", true),
            ("utm_*", "autm_x", false),
            ("*id", "gclid", true),
            ("*id", "idx", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("theme", "theme", true),
            ("theme", "themes", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }
}
