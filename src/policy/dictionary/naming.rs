//! Which files are versions of one: told by their names alone.
//!
//! Build tools put a version or a digest of the content into the name of a file, or behind it as a query. What is left
//! when that is taken out names the *family*: `/assets/app.3f9ac81b.js` and `/assets/app.77b01c4e.js` are both
//! `/assets/app.*.js`. The same text is the URL pattern by which a browser finds the dictionary for a file, so only names
//! whose characters mean themselves in such a pattern have a family.
//!
//! Names are guessed at. A family that is none costs a few bytes of a field and a delta that does not get smaller, and is
//! therefore not sent; one that is not seen costs what it would have saved.

/// Longest pattern: a field that goes with every answer must stay short.
const PATTERN_MAX: usize = 256;
/// Fewest characters of a digest. Shorter ones cannot be told from words.
const DIGEST_MIN: usize = 8;
/// Most: SHA-512 in hexadecimal.
const DIGEST_MAX: usize = 128;
/// Names of query parameters that carry a version.
const VERSION_PARAMETERS: [&str; 14] =
    ["v", "ver", "version", "hash", "h", "rev", "revision", "r", "t", "ts", "build", "cb", "cachebust", "_"];

/// The family of a file, as the URL pattern of its members; `None` where its name has no version, where nothing else would
/// be left of it, or where it has characters that mean something in patterns. `query` comes without `?`. Cost: one pass,
/// one string.
#[must_use]
pub fn family(path: &str, query: Option<&str>) -> Option<String> {
    if path.len() + query.map_or(0, str::len) > PATTERN_MAX || !path.bytes().all(is_literal) {
        return None;
    }
    let (folders, file) = path.rsplit_once('/')?;
    let mut pattern = String::with_capacity(PATTERN_MAX);
    let mut versioned = false;
    for folder in folders.split('/').skip(1) {
        pattern.push('/');
        versioned |= push_folder(&mut pattern, folder);
    }
    pattern.push('/');
    let (stem, extension) = file.rsplit_once('.').map_or((file, None), |(stem, extension)| (stem, Some(extension)));
    let named = stem_pattern(stem);
    // A file whose name is nothing but a digest is of no family: the pattern would stand for everything beside it.
    if named.as_deref().is_some_and(|named| !named.bytes().any(|byte| byte.is_ascii_alphanumeric())) {
        return None;
    }
    versioned |= named.is_some();
    pattern.push_str(named.as_deref().unwrap_or(stem));
    if let Some(extension) = extension {
        pattern.push('.');
        pattern.push_str(extension);
    }
    if let Some(query) = query {
        versioned |= push_query(&mut pattern, query)?;
    }
    versioned.then_some(pattern)
}

/// True for bytes that stand for themselves in a URL pattern, and in a string of a structured field.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte)
}

/// Appends a folder, its version replaced: `5.34.0`, `v2.1`, `swagger-ui-dist@5.34.0`. True where it had one.
fn push_folder(pattern: &mut String, folder: &str) -> bool {
    let (name, version) = match folder.rfind('@') {
        Some(at) if at > 0 => folder.split_at(at + 1),
        _ => ("", folder),
    };
    pattern.push_str(name);
    let versioned = is_version(version) || name.is_empty() && is_digest(version);
    pattern.push_str(if versioned { "*" } else { version });
    versioned
}

/// The name of a file without its extension, with the version in it replaced; `None` = there is none.
fn stem_pattern(stem: &str) -> Option<String> {
    let whole = |at: usize, end: usize| {
        let (head, tail) = (stem.get(..at)?, stem.get(end..)?);
        Some(format!("{head}*{tail}"))
    };
    // Every piece between two marks, longest first for each start: a version has dots, and some digests have dashes.
    let starts = std::iter::once(0).chain(marks(stem).map(|at| at + 1));
    for start in starts {
        let ends = std::iter::once(stem.len()).chain(marks(stem).collect::<Vec<_>>().into_iter().rev());
        for end in ends.filter(|end| *end > start) {
            let piece = stem.get(start..end)?;
            if is_version(piece) || is_digest(piece) {
                return whole(start, end);
            }
        }
    }
    None
}

fn marks(stem: &str) -> impl DoubleEndedIterator<Item = usize> {
    stem.bytes().enumerate().filter(|(_, byte)| b".-_@~".contains(byte)).map(|(at, _)| at)
}

/// `1.2`, `v3`, `5.34.0-rc.1`: numbers with dots between them, or behind a `v`.
fn is_version(text: &str) -> bool {
    let (numbers, prefixed) = match text.strip_prefix('v') {
        Some(numbers) => (numbers, true),
        None => (text, false),
    };
    let (numbers, stage) = numbers.split_once('-').map_or((numbers, None), |(numbers, stage)| (numbers, Some(stage)));
    let mut count = 0;
    let numeric = numbers.split('.').all(|number| {
        count += 1;
        !number.is_empty() && number.len() <= 10 && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let staged = stage.is_none_or(|stage| ["alpha", "beta", "rc", "next"].iter().any(|word| stage.starts_with(word)));
    numeric && staged && (count > 1 || prefixed)
}

/// Hexadecimal of some length with digits in it, or eight characters of Base64url or Base32 as bundlers write them, or
/// longer ones with several digits.
fn is_digest(text: &str) -> bool {
    let bytes = text.as_bytes();
    if !(DIGEST_MIN..=DIGEST_MAX).contains(&bytes.len())
        || !bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return false;
    }
    let count = |is: fn(&u8) -> bool| bytes.iter().filter(|byte| is(byte)).count();
    let (digits, upper, lower) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let hexadecimal = bytes.iter().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    if hexadecimal {
        return digits > 0;
    }
    // A name with marks in it is rather a few words than a digest, unless it is as long as a bundler's.
    let marked = digits + upper + lower < bytes.len();
    match bytes.len() {
        DIGEST_MIN => digits > 0 && upper > 0 || upper >= 3 && (lower == 0 || lower >= 2) && !marked,
        _ => !marked && digits >= 3 && (upper > 0 || digits * 8 >= bytes.len()),
    }
}

/// Appends the query, its version replaced. True where it had one, `None` where it cannot stand in a pattern.
fn push_query(pattern: &mut String, query: &str) -> Option<bool> {
    if !query.bytes().all(|byte| is_literal(byte) || b"=&".contains(&byte)) {
        return None;
    }
    let numeric = |value: &str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let names_version = |value: &str| numeric(value) || is_version(value) || is_digest(value);
    let mut versioned = false;
    for (place, item) in query.split('&').enumerate() {
        pattern.push(if place == 0 { '?' } else { '&' });
        match item.split_once('=') {
            Some((name, value)) if VERSION_PARAMETERS.contains(&name) && names_version(value) => {
                pattern.push_str(name);
                pattern.push_str("=*");
                versioned = true;
            }
            None if names_version(item) => {
                pattern.push('*');
                versioned = true;
            }
            _ => pattern.push_str(item),
        }
    }
    Some(versioned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_out_of_names() {
        for (path, query, expected) in [
            ("/assets/app.3f9ac81b.js", None, Some("/assets/app.*.js")),
            ("/assets/app-3f9ac81b77.min.css", None, Some("/assets/app-*.min.css")),
            ("/assets/index-DkX_9a-B.js", None, Some("/assets/index-*.js")),
            ("/assets/index-BLrPHmQz.js", None, Some("/assets/index-*.js")),
            ("/chunk-ABCD2345.js", None, Some("/chunk-*.js")),
            ("/static/js/2.b41502e9.chunk.js", None, Some("/static/js/2.*.chunk.js")),
            ("/_next/static/chunks/main-8d9bdd9a2a3b5c77.js", None, Some("/_next/static/chunks/main-*.js")),
            ("/app_3f9ac81b.wasm", None, Some("/app_*.wasm")),
            ("/jquery-3.7.1.min.js", None, Some("/jquery-*.min.js")),
            ("/lib/5.34.0/bundle.js", None, Some("/lib/*/bundle.js")),
            (
                "/npm/swagger-ui-dist@5.34.0/swagger-ui-bundle.js",
                None,
                Some("/npm/swagger-ui-dist@*/swagger-ui-bundle.js"),
            ),
            ("/npm/@scope/name@2.0.0-rc.1/name.js", None, Some("/npm/@scope/name@*/name.js")),
            ("/v2.1/main.aabbcc11.css", None, Some("/*/main.*.css")),
            ("/app.v12.js", None, Some("/app.*.js")),
            ("/app.js", Some("v=12"), Some("/app.js?v=*")),
            ("/app.js", Some("3f9ac81b"), Some("/app.js?*")),
            ("/app.js", Some("lang=en&ver=5.9.1"), Some("/app.js?lang=en&ver=*")),
            ("/app.js", None, None),
            ("/app.js", Some("lang=en"), None),
            ("/app.js", Some("v=new"), None),
            ("/swagger-ui-bundle.js", None, None),
            ("/bootstrap-datepicker.js", None, None),
            ("/chunk-vendors.js", None, None),
            ("/decade-facade.js", None, None),
            ("/plants-fabaceae.js", None, None),
            ("/react-ComponentList.js", None, None),
            ("/polyfills-es2015.js", None, None),
            ("/chapter-12.js", None, None),
            ("/assets/3f9ac81b77.js", None, None),
            ("/assets/-3f9ac81b77.js", None, None),
            ("/a(b)/app.3f9ac81b.js", None, None),
            ("/a%20b/app.3f9ac81b.js", None, None),
            ("/a:b/app.3f9ac81b.js", None, None),
            ("/app.3f9ac81b.js", Some("x=\"y\""), None),
            ("/", None, None),
            ("", None, None),
        ] {
            assert_eq!(family(path, query).as_deref(), expected, "{path} {query:?}");
        }
        let long = format!("/{}/app.3f9ac81b.js", "x".repeat(PATTERN_MAX));
        assert_eq!(family(&long, None), None);
    }

    #[test]
    fn versions_of_one_file_have_one_family() {
        for names in [
            ["/a/app.3f9ac81b.js", "/a/app.00000000.js"],
            ["/swagger-ui@5.34.0/b.js", "/swagger-ui@5.35.0/b.js"],
            ["/x-1.9.js", "/x-1.10.2.js"],
        ] {
            let [old, new] = names.map(|name| family(name, None));
            assert!(old.is_some() && old == new, "{names:?}");
        }
    }
}
