//! Field names that the relay has to know.

/// Names that the relay has to know. Everything else is [`Name::Other`] and passes untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Name {
    Accept,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    SecFetchDest,
    SecFetchMode,
    SecFetchSite,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XArpToken,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedPrefix,
    XForwardedProto,
    XRealIp,
    Other,
}

impl Name {
    /// Recognises a field name, any case.
    pub fn of(name: &[u8]) -> Self {
        let table: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::Te)],
            3 => &[("via", Self::Via)],
            4 => &[("host", Self::Host)],
            6 => &[
                ("accept", Self::Accept),
                ("cookie", Self::Cookie),
                ("expect", Self::Expect),
                ("origin", Self::Origin),
            ],
            7 => &[
                ("referer", Self::Referer),
                ("trailer", Self::Trailer),
                ("upgrade", Self::Upgrade),
            ],
            9 => &[("forwarded", Self::Forwarded), ("x-real-ip", Self::XRealIp)],
            10 => &[
                ("connection", Self::Connection),
                ("keep-alive", Self::KeepAlive),
                ("user-agent", Self::UserAgent),
                ("set-cookie", Self::SetCookie),
            ],
            11 => &[("x-arp-token", Self::XArpToken)],
            14 => &[
                ("content-length", Self::ContentLength),
                ("sec-fetch-mode", Self::SecFetchMode),
                ("sec-fetch-site", Self::SecFetchSite),
                ("sec-fetch-dest", Self::SecFetchDest),
            ],
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                ("x-forwarded-host", Self::XForwardedHost),
                ("x-forwarded-port", Self::XForwardedPort),
                ("proxy-connection", Self::ProxyConnection),
            ],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::XForwardedProto),
            ],
            18 => &[
                ("proxy-authenticate", Self::ProxyAuthenticate),
                ("x-forwarded-prefix", Self::XForwardedPrefix),
            ],
            19 => &[("proxy-authorization", Self::ProxyAuthorization)],
            _ => &[],
        };
        // Nearly all of one length begin differently.
        let first = name.first().map(u8::to_ascii_lowercase);
        table
            .iter()
            .find(|(n, _)| n.as_bytes().first() == first.as_ref() && n.as_bytes().eq_ignore_ascii_case(name))
            .map_or(Self::Other, |(_, n)| *n)
    }

    /// Ends at each hop and is emitted afresh or not at all (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::ContentLength
        )
    }
}
