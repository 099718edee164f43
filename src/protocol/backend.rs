//! What a back end is known by, whichever URL leads to it.

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
    let end = memchr::memmem::find(url, SEPARATOR)?;
    let (scheme, rest) = (&url[..end], &url[end + SEPARATOR.len()..]);
    let authority =
        &rest[..rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len())];
    let host = authority.rsplit(|byte| *byte == b'@').next()?;
    let is = |names: [&[u8]; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    let (scheme, own_port): (&[u8], &[u8]) = match () {
        () if is([b"http", b"ws"]) => (b"http", b":80"),
        () if is([b"https", b"wss"]) => (b"https", b":443"),
        () => (scheme, b""),
    };
    let host = host.strip_suffix(own_port).unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    // This is asked for each request.
    let mut name = Vec::with_capacity(scheme.len() + SEPARATOR.len() + host.len());
    for part in [scheme, SEPARATOR, host] {
        name.extend_from_slice(part);
    }
    name.make_ascii_lowercase();
    Some(name)
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
}
