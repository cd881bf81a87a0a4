//! Why the parser did not take a line for a field (RFC 9112 §5).

/// The stable name of what is wrong with a line behind the first one of a head; `None` when it is a field. Runs on refused
/// heads only.
#[must_use]
pub fn field_line_fault(line: &[u8]) -> Option<&'static str> {
    if line.is_empty() {
        return None;
    }
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Some("obs_fold");
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Some("field_without_colon") };
    let (name, value) = line.split_at_checked(colon)?;
    if name.ends_with(b" ") || name.ends_with(b"\t") {
        return Some("space_before_colon");
    }
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Some("field_name");
    }
    value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t').then_some("field_value")
}

/// RFC 9110 §5.6.2 `tchar`.
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
