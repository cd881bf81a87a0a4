//! HTTP dates in fields (RFC 9110 §5.6.7).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

use crate::policy::fields;

/// The date in field `name`. `None` when the field is absent, given twice with different values, or not a date in one of
/// the three formats: a recipient must then not trust any of it.
#[must_use]
pub fn read(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = fields::lines(headers, name);
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return None;
    }
    parse(first.to_str().ok()?)
}

/// One HTTP date. An RFC 850 year is taken as at most 50 years ahead (that is the library's rule as well). A wrong case and
/// a wrong day of the week say nothing about the time, so they are overlooked (RFC 9110 §5.6.7 asks for that robustness);
/// anything else that is not a date is none.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    httpdate::parse_http_date(text).ok().or_else(|| overlooking_the_weekday(text))
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The fixed and the asctime format with every word in its proper case, under whichever weekday fits.
fn overlooking_the_weekday(text: &str) -> Option<SystemTime> {
    let (weekday, rest) = text.split_once(' ')?;
    let comma = if weekday.ends_with(',') { "," } else { "" };
    let known = WEEKDAYS.iter().any(|name| name.eq_ignore_ascii_case(weekday.trim_end_matches(',')));
    if !known {
        return None;
    }
    let rest: Vec<_> = rest.split(' ').map(proper_case).collect();
    let rest = rest.join(" ");
    WEEKDAYS.iter().find_map(|name| httpdate::parse_http_date(&format!("{name}{comma} {rest}")).ok())
}

fn proper_case(word: &str) -> String {
    if word.eq_ignore_ascii_case("GMT") {
        return "GMT".to_owned();
    }
    let mut word = word.to_ascii_lowercase();
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
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
            (&["THU, 18 AUG 2050 02:01:18 gmt"], true),
            (&["Mon, 18 Aug 2050 02:01:18 GMT"], true),
            (&["Thu Aug  8 02:01:18 2050"], true),
            (&["Foo, 18 Aug 2050 02:01:18 GMT"], false),
            (&["Thu, 18 Aug 2050 02:01:18 PST"], false),
            (&["Thu, 32 Aug 2050 02:01:18 GMT"], false),
            (&["Thu, 18 Aug 2050 2:1:18 GMT"], false),
            (&["0"], false),
            (&["06 Nov 1994"], false),
            (&[], false),
        ] {
            let headers: HeaderMap = lines.iter().map(|line| (DATE, HeaderValue::from_static(line))).collect();
            assert_eq!(read(&headers, &DATE).is_some(), expected, "{lines:?}");
        }
    }
}
