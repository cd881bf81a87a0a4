//! HTTP dates in fields (RFC 9110 §5.6.7).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

/// The date in field `name`. `None` when the field is absent, given twice with different values, or not a date in one of
/// the three formats: a recipient must then not trust any of it.
#[must_use]
pub fn read(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return None;
    }
    parse(first.to_str().ok()?)
}

/// One HTTP date. An RFC 850 year is taken as at most 50 years ahead (that is the library's rule as well).
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::DATE;

    #[test]
    fn only_one_good_date_counts() {
        for (lines, expected) in [
            (&["Sun, 06 Nov 1994 08:49:37 GMT"][..], true),
            (&["Sunday, 06-Nov-94 08:49:37 GMT"], true),
            (&["Sun Nov  6 08:49:37 1994"], true),
            (&["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"], true),
            (&["Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 07 Nov 1994 08:49:37 GMT"], false),
            (&["0"], false),
            (&["06 Nov 1994"], false),
            (&[], false),
        ] {
            let headers: HeaderMap = lines.iter().map(|line| (DATE, HeaderValue::from_static(line))).collect();
            assert_eq!(read(&headers, &DATE).is_some(), expected, "{lines:?}");
        }
    }
}
