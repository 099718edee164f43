//! What a back end is known by, whichever URL leads to it.

use memchr::memchr;

/// The name of the back end behind a URL, or behind the name of one of mod_proxy's workers: scheme,
/// host and port, or the path of its unix socket. It is the same for `ws://` and `http://`, with the
/// scheme's own port or without, and for every path. `None` if there is no host.
#[must_use]
pub fn name(url: &[u8]) -> Option<Vec<u8>> {
    if let Some((scheme, rest)) = url.split_at_checked(UNIX.len())
        && scheme.eq_ignore_ascii_case(UNIX)
    {
        let path = rest.split(|byte| *byte == b'|').next().filter(|path| !path.is_empty())?;
        return Some([UNIX, path].concat());
    }
    let (scheme, host) = parts(url);
    let (scheme, own_port): (&[u8], &[u8]) = match () {
        () if is_one(scheme, [b"http", b"ws"]) => (b"http", b":80"),
        () if is_one(scheme, [b"https", b"wss"]) => (b"https", b":443"),
        () => (scheme, b""),
    };
    let host = host.strip_suffix(own_port).unwrap_or(host);
    let is_there = !scheme.is_empty() && !host.is_empty();
    is_there.then(|| lowercase([scheme, SEPARATOR, host, b""]))
}

/// What the back end behind a URL is called where it is shown: its scheme, host and port.
#[must_use]
pub fn shown(url: &[u8]) -> Vec<u8> {
    let (scheme, host) = parts(url);
    let port = host.rsplit(|byte| *byte == b':').next().unwrap_or_default();
    // Colons within brackets are an address's own.
    let has_port = port.len() < host.len() && !port.contains(&b']');
    let port: &[u8] = match () {
        () if has_port => b"",
        () if is_one(scheme, [b"https", b"wss"]) => b":443",
        () => b":80",
    };
    lowercase([scheme, SEPARATOR, host, port])
}

/// The scheme of a URL, and its host and port. A user and a password are nobody's business.
fn parts(url: &[u8]) -> (&[u8], &[u8]) {
    let (scheme, behind) = url.split_at(memchr(b':', url).unwrap_or(0));
    let (scheme, rest) = match behind.strip_prefix(SEPARATOR) {
        Some(rest) => (scheme, rest),
        None => (&[][..], url),
    };
    let authority = rest.split(|byte| b"/?#".contains(byte)).next().unwrap_or_default();
    (scheme, authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default())
}

fn is_one(scheme: &[u8], of: [&[u8]; 2]) -> bool {
    of.iter().any(|name| scheme.eq_ignore_ascii_case(name))
}

/// One behind the other. This is asked for each request.
fn lowercase(parts: [&[u8]; 4]) -> Vec<u8> {
    let mut name = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        name.extend_from_slice(part);
    }
    name.make_ascii_lowercase();
    name
}

/// Between the scheme of a URL and its host.
const SEPARATOR: &[u8] = b"://";

/// What the name of a worker begins with whose back end has a unix socket.
const UNIX: &[u8] = b"unix:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_end_has_one_name() {
        for (name_, urls) in [
            (
                Some("http://a.test:8080"),
                &["http://a.test:8080", "ws://A.test:8080/b?c", "HTTP://u@a.test:8080#d"][..],
            ),
            (Some("http://my_host"), &["http://my_host:80/", "ws://my_host", "ws://my_host:80"]),
            (Some("https://[::1]"), &["https://[::1]:443/x", "wss://[::1]"]),
            (Some("http://[::1]:443"), &["ws://[::1]:443/x:80"]),
            (Some("ftp://a.test:443"), &["ftp://a.test:443/x", "FTP://u@A.test:443"]),
            (Some("unix:/run/s"), &["unix:/run/s|http://localhost/", "UNIX:/run/s|ws://x:1/y"]),
            (None, &["", "proxy:reverse", "http://", "http:///path", "unix:|http://a", "a:b"]),
        ] {
            for url in urls {
                let found = name(url.as_bytes());
                assert_eq!(found.as_deref(), name_.map(str::as_bytes), "{url}");
            }
        }
    }

    #[test]
    fn a_back_end_is_shown_with_its_port() {
        for (url, expected) in [
            ("http://a.test:8080/b?c", "http://a.test:8080"),
            ("HTTP://u:p@A.test/x:1", "http://a.test:80"),
            ("wss://a.test?x", "wss://a.test:443"),
            ("https://[::1]", "https://[::1]:443"),
            ("ws://[::1]:81#a", "ws://[::1]:81"),
            ("a.test/x", "://a.test:80"),
        ] {
            assert_eq!(String::from_utf8_lossy(&shown(url.as_bytes())), expected, "{url}");
        }
    }
}
