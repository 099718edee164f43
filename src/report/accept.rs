//! Which format of the figures an Accept header asks for.

/// Whether it asks for OpenMetrics 1.0 at least as much as for plain text (RFC 9110 12.5.1).
/// Without a header, or with one that cannot be read, it does not.
#[must_use]
pub fn wants_open_metrics(accept: &[u8]) -> bool {
    // How well the range fits (3 if whole), and its weight in thousandths.
    let (mut open_metrics, mut plain) = (0, (0, 0));
    for range in str::from_utf8(accept).unwrap_or_default().split(',') {
        let Some(range) = Range::parse(range) else { continue };
        match &*range.essence {
            "application/openmetrics-text" if range.is_version("1.0.0") => {
                open_metrics = open_metrics.max(range.weight);
            }
            "text/plain" if range.is_version("0.0.4") => plain = plain.max((3, range.weight)),
            "text/*" => plain = plain.max((2, range.weight)),
            "*/*" => plain = plain.max((1, range.weight)),
            _ => {}
        }
    }
    open_metrics > 0 && open_metrics >= plain.1
}

/// One of the types that are accepted.
struct Range {
    /// In lower case.
    essence: String,
    /// Of the format; any if it is not said.
    version: Option<String>,
    weight: u16,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next()?.to_ascii_lowercase();
        let mut range = Self { essence, version: None, weight: 1000 };
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("q") {
                range.weight = weight(value)?;
            } else if name.eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"').to_owned());
            }
        }
        Some(range)
    }

    fn is_version(&self, ours: &str) -> bool {
        self.version.as_deref().is_none_or(|version| version == ours)
    }
}

/// `0` to `1` with up to three digits behind the point, as thousandths.
fn weight(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    let is_right = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{digits:0<3}").parse().ok().filter(|_| is_right)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_ask_for() {
        for (accept, expected) in [
            ("", false),
            ("*/*", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("text/plain", false),
            ("text/plain;version=0.0.4", false),
            // Prometheus 2.42, 2.53, 3.0.
            (
                "application/openmetrics-text;version=1.0.0,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                true,
            ),
            // Older than OpenMetrics 1.0.
            ("application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=1.000", true),
            ("application/openmetrics-text; version=2.0.0", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=0.001", true),
            ("application/openmetrics-text;q=0.5,text/plain", false),
            ("application/openmetrics-text;q=0.5,*/*", false),
            ("application/openmetrics-text;q=0.5,text/*;q=0.6", false),
            // The closest one counts.
            ("application/openmetrics-text;q=0.5,*/*,text/plain;q=0.1", true),
            ("application/openmetrics-text,text/plain", true),
            ("application/openmetrics-text2", false),
            ("xapplication/openmetrics-text", false),
            ("application/*", false),
        ] {
            assert_eq!(wants_open_metrics(accept.as_bytes()), expected, "{accept}");
        }
        assert!(!wants_open_metrics(b"application/openmetrics-text,\xff"));
    }

    #[test]
    fn weights_are_read_as_they_stand() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.05", Some(50)),
            ("0.999", Some(999)),
            ("1.000", Some(1000)),
            ("1.001", None),
            ("0.5000", None),
            ("2", None),
            ("-1", None),
            ("0.x", None),
            ("", None),
            (".5", None),
        ] {
            assert_eq!(weight(text), expected, "{text}");
        }
    }
}
