//! Names and values of a query string or a form (application/x-www-form-urlencoded).
//!
//! The crates that read these take what is wrong for what it looks like, as browsers must. What may
//! close tunnels refuses it.

use std::fmt::Write;

use crate::Bad;

/// A name, and its value if there is a `=`.
type Field = (Vec<u8>, Option<Vec<u8>>);

/// The fields one after the other, decoded.
pub(crate) fn fields(text: &[u8]) -> impl Iterator<Item = Result<Field, Bad>> {
    text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).map(|field| {
        let equals = field.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals {
            Some(at) => (&field[..at], Some(&field[at + 1..])),
            None => (field, None),
        };
        Ok((decode(name)?, value.map(decode).transpose()?))
    })
}

fn decode(text: &[u8]) -> Result<Vec<u8>, Bad> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        decoded.push(match first {
            b'+' => b' ',
            b'%' => {
                let wrong = || Bad::with("% without two hexadecimal digits", text);
                let (digits, behind) = rest.split_at_checked(2).ok_or_else(wrong)?;
                rest = behind;
                hex(digits[0]).zip(hex(digits[1])).map(|(a, b)| a * 16 + b).ok_or_else(wrong)?
            }
            byte => *byte,
        });
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

/// A field in front of which there may be others, encoded.
pub(crate) fn append(query: &mut String, name: &str, value: &[u8]) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(name);
    query.push('=');
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            query.push(char::from(*byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(query, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Field>, Bad> {
        fields(text).collect()
    }

    #[test]
    fn fields_are_decoded() {
        let field = |name: &[u8], value: Option<&[u8]>| (name.to_vec(), value.map(<[u8]>::to_vec));
        assert_eq!(all(b"").unwrap(), []);
        assert_eq!(all(b"&&").unwrap(), []);
        assert_eq!(
            all(b"json&a=&=b&c=d=e&x+y=%41%2b%00%fF+&").unwrap(),
            [
                field(b"json", None),
                field(b"a", Some(b"")),
                field(b"", Some(b"b")),
                field(b"c", Some(b"d=e")),
                field(b"x y", Some(b"A+\0\xff ")),
            ]
        );
    }

    #[test]
    fn what_is_not_encoded_rightly_is_refused() {
        for text in ["%", "a=%", "a=%4", "a=%4g", "a=%+1", "%zz=a", "a=1&b=%\u{661}1"] {
            let bad = all(text.as_bytes()).unwrap_err().to_string();
            assert!(bad.starts_with("% without two hexadecimal digits: "), "{bad}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_again() {
        let every: Vec<u8> = (0..=255).collect();
        let mut query = String::new();
        append(&mut query, "a", &every);
        append(&mut query, "b", b"");
        let expected = [(b"a".to_vec(), Some(every)), (b"b".to_vec(), Some(Vec::new()))];
        assert_eq!(all(query.as_bytes()).unwrap(), expected);
    }
}
