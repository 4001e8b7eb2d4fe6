//! What differs between two configurations, for a reload to tell.

use super::Config;
use crate::admission::EdgeLimits;
use crate::shared::PublicLimits;
use crate::tcp::RawLimits;
use crate::tcp::ports::PortLimits;
use crate::tunnels::limits::PoolLimits;

/// The settings that differ, as flags.
#[derive(Debug, Default)]
struct Differing {
    /// They can be changed while the relay serves.
    live: Vec<String>,
    /// They cannot.
    fixed: Vec<String>,
}

/// The settings that differ: those that can be changed while the relay serves, and those that cannot.
pub fn changes(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let mut differ = Differing::default();
    // Each field by its name, here and below, so that no new one is forgotten.
    let Config {
        bind,
        control_port,
        proxy_port,
        public_port,
        pool,
        public,
        max_conns,
        max_conns_per_ip,
        max_clients,
        edges,
        public_url,
        allow_plaintext,
        data_dir,
        join_key,
        bans,
        admin,
        tls,
        heartbeat,
        grace,
        log_format,
        ports,
    } = new;
    differ.pool(&old.pool, pool);
    differ.public(&old.public, public);
    differ.live(old.public_url != *public_url, "public-url");
    differ.live(old.max_conns != *max_conns, "max-conns");
    differ.live(old.max_conns_per_ip != *max_conns_per_ip, "max-conns-per-ip");
    differ.live(old.max_clients != *max_clients, "max-clients");
    differ.edges(&old.edges, edges);
    differ.live(old.join_key != *join_key, "join-key");
    differ.live(old.bans != *bans, "ban");
    differ.live(old.heartbeat != *heartbeat, "heartbeat");
    differ.live(old.grace != *grace, "grace");
    let before = old.admin.as_ref().and_then(|a| a.key.as_ref());
    let after = admin.as_ref().and_then(|a| a.key.as_ref());
    if before.is_some() && after.is_some() {
        differ.live(before != after, "admin-key");
    } else {
        // Back to the one of the data directory is another start.
        differ.fixed(before != after, &["admin-key"]);
    }
    differ.fixed(old.tls != *tls, &["tls-cert", "tls-key"]);
    differ.fixed(old.bind != *bind, &["bind"]);
    differ.fixed(old.control_port != *control_port, &["control-port"]);
    differ.fixed(old.proxy_port != *proxy_port, &["proxy-port"]);
    differ.fixed(old.public_port != *public_port, &["public-port"]);
    differ.ports(&old.ports, ports);
    differ.fixed(old.allow_plaintext != *allow_plaintext, &["allow-plaintext"]);
    differ.fixed(old.data_dir != *data_dir, &["data-dir"]);
    differ.fixed(old.log_format != *log_format, &["log-format"]);
    let before = old.admin.as_ref().map(|a| (a.bind, a.port));
    let after = admin.as_ref().map(|a| (a.bind, a.port));
    differ.fixed(before != after, &["admin", "admin-bind", "admin-port"]);
    (differ.live, differ.fixed)
}

impl Differing {
    fn live(&mut self, changed: bool, flag: &str) {
        if changed {
            self.live.push(format!("--{flag}"));
        }
    }

    fn fixed(&mut self, changed: bool, flags: &[&str]) {
        if changed {
            self.fixed.extend(flags.iter().map(|flag| format!("--{flag}")));
        }
    }

    fn pool(&mut self, old: &PoolLimits, new: &PoolLimits) {
        let PoolLimits {
            target,
            max_tunnels,
            max_waiting,
            wait,
        } = new;
        self.live(old.target != *target, "pool-size");
        self.live(old.max_tunnels != *max_tunnels, "max-tunnels");
        self.live(old.max_waiting != *max_waiting, "max-waiting");
        self.live(old.wait != *wait, "tunnel-wait");
    }

    fn public(&mut self, old: &PublicLimits, new: &PublicLimits) {
        let PublicLimits {
            head_timeout,
            keep_alive,
            response_timeout,
            domain,
            trusted_proxies,
            balancers,
            // It is a part of the public URL.
            public_host: _,
            hsts,
            raw: RawLimits { idle, total },
        } = new;
        self.live(old.head_timeout != *head_timeout, "head-timeout");
        self.live(old.keep_alive != *keep_alive, "keep-alive");
        self.live(old.response_timeout != *response_timeout, "response-timeout");
        self.live(old.domain != *domain, "domain");
        self.live(old.trusted_proxies != *trusted_proxies, "trusted-proxy");
        self.live(old.balancers != *balancers, "proxy-protocol-from");
        self.live(old.hsts != *hsts, "hsts");
        self.live(old.raw.idle != *idle, "raw-idle");
        self.live(old.raw.total != *total, "raw-total");
    }

    fn edges(&mut self, old: &EdgeLimits, new: &EdgeLimits) {
        let EdgeLimits {
            per_ip,
            new_names_per_ip,
            // They follow from the number of clients.
            names: _,
        } = new;
        self.live(old.per_ip != *per_ip, "max-edges-per-ip");
        self.live(old.new_names_per_ip != *new_names_per_ip, "max-new-names-per-ip");
    }

    fn ports(&mut self, old: &PortLimits, new: &PortLimits) {
        let PortLimits {
            range,
            per_client,
            keep,
            // It is that of all ports.
            bind: _,
        } = new;
        self.fixed(old.range != *range, &["remote-ports"]);
        self.fixed(old.per_client != *per_client, &["remote-ports-per-client"]);
        self.fixed(old.keep != *keep, &["remote-port-keep"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cli;
    use clap::Parser;

    fn config(flags: &[&str]) -> Config {
        Config::new(Cli::parse_from([&["arps"], flags].concat()).settings).unwrap()
    }

    #[test]
    fn each_setting_is_told_by_its_flag() {
        let before = config(&[]);
        assert_eq!(changes(&before, &before), (vec![], vec![]));
        for (flag, value, live) in [
            ("--pool-size", "7", true),
            ("--raw-idle", "9", true),
            ("--raw-total", "9", true),
            ("--proxy-protocol-from", "10.0.0.0/8", true),
            ("--max-new-names-per-ip", "0", true),
            ("--join-key", "long enough it is", true),
            ("--admin-key", "long enough it is, and more", false),
            ("--remote-ports", "20000-20009", false),
            ("--remote-ports-per-client", "3", false),
            ("--remote-port-keep", "60", false),
            ("--control-port", "4", false),
        ] {
            let (now, later) = changes(&before, &config(&[flag, value]));
            let (told, silent) = if live { (now, later) } else { (later, now) };
            assert_eq!((told, silent), (vec![flag.to_owned()], vec![]), "{flag}");
        }
        let with_key = |key| config(&["--admin-key", key]);
        let (a, b) = (
            with_key("long enough it is, and more"),
            with_key("long enough it is, but another"),
        );
        assert_eq!(changes(&a, &b).0, ["--admin-key"]);
    }
}
