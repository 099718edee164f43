//! The rules of RFC 9110 for field values, as they are written there.

/// Section 5.6.1.2.
pub(crate) fn list(value: &[u8]) -> Vec<&[u8]> {
    let all = value.split(|byte| *byte == b',').map(stripped);
    all.filter(|member| !member.is_empty()).collect()
}

/// Section 5.6.3: without the white space around it.
pub(crate) fn stripped(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Case does not count.
#[expect(clippy::manual_ignore_case_cmp, reason = "what is compared with does it the other way")]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.to_ascii_lowercase() == b.to_ascii_lowercase()
}

/// Section 5.6.2: any VCHAR but delimiters.
pub(crate) fn is_token(name: &[u8]) -> bool {
    let is_delimiter = |byte: &u8| b"\"(),/:;<=>?@[\\]{}".contains(byte);
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && !is_delimiter(byte))
}
