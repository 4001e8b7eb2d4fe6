//! Origins of URLs, written as browsers write them.

/// Scheme, host and port of an `http` or `https` URL as a browser writes them in `Origin`: in lower case, without a
/// port that goes without saying. `None` if it is no such URL, or holds a user's name.
pub fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.strip_suffix(port).unwrap_or(authority);
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (!host.is_empty() && host.bytes().all(fine)).then(|| format!("{scheme}://{}", host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_browsers_write_them() {
        for (url, origin) in [
            ("https://arp.example.com", Some("https://arp.example.com")),
            (
                "HTTPS://Arp.Example.com:443/x?y#z",
                Some("https://arp.example.com"),
            ),
            ("http://arp.example.com:443", Some("http://arp.example.com:443")),
            ("http://arp.example.com:80/", Some("http://arp.example.com")),
            (
                "https://arp.example.com:8443?x",
                Some("https://arp.example.com:8443"),
            ),
            ("http://[2001:DB8::80]", Some("http://[2001:db8::80]")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("http://user:pass@host", None),
            ("ftp://host", None),
            ("https:///x", None),
            ("https://:443", None),
            ("host", None),
        ] {
            assert_eq!(origin_of(url).as_deref(), origin, "{url}");
        }
    }
}
