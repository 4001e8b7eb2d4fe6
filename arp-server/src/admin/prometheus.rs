//! `GET /metrics`: the text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::shape::{ClientRow, Status};
use crate::metrics::{BOUNDS, Class, Totals};
use crate::store::Day;
use std::fmt::{Display, Write as _};

/// Clients that have series of their own: those with the most traffic. All others are one.
const CLIENTS: usize = 100;
/// Letters of a client id that are shown: with as many of its key they tell clients apart, and nobody who reads the
/// metrics can visit one.
const SHOWN: usize = 4;

/// Writes all of it. `days` are the totals that survived earlier restarts, today's included.
pub(super) fn text(status: &Status, totals: &Totals, clients: &[ClientRow], days: &[Day]) -> String {
    let mut out = Text(String::with_capacity(16 * 1024));
    out.family("arp_build_info", "gauge", "Version and commit.");
    out.line("arp_build_info", &[("version", &status.version)], 1);
    out.one(
        "arp_up",
        "gauge",
        "1 while it serves, 0 while it lets exchanges finish.",
        u8::from(status.serving),
    );
    out.one(
        "arp_uptime_seconds",
        "gauge",
        "Time since the start.",
        status.uptime,
    );
    out.one(
        "arp_edges_online",
        "gauge",
        "Edge agents that are connected.",
        status.edges.online,
    );
    out.one(
        "arp_edges_known",
        "gauge",
        "Clients in memory, connected or not.",
        status.edges.known,
    );
    out.one(
        "arp_registrations_total",
        "counter",
        "Registrations of edge agents.",
        status.edges.registrations,
    );
    out.family("arp_tunnels", "gauge", "Tunnels by state.");
    out.line("arp_tunnels", &[("state", "idle")], status.tunnels.idle);
    out.line("arp_tunnels", &[("state", "used")], status.tunnels.used);
    out.one(
        "arp_requests_waiting",
        "gauge",
        "Requests that wait for a tunnel.",
        status.tunnels.waiting,
    );
    out.one(
        "arp_tunnels_opened_total",
        "counter",
        "Tunnels that edge agents opened.",
        status.tunnels.opened,
    );
    out.family("arp_checkouts_total", "counter", "How requests got a tunnel.");
    let c = &status.checkouts;
    for (result, n) in [
        ("hit", c.hit),
        ("miss", c.miss),
        ("timeout", c.timeout),
        ("offline", c.offline),
        ("busy", c.busy),
    ] {
        out.line("arp_checkouts_total", &[("result", result)], n);
    }
    out.one(
        "arp_visitor_connections",
        "gauge",
        "Open connections of visitors.",
        status.visitors,
    );
    out.family(
        "arp_bytes_total",
        "counter",
        "Bytes of bodies, of changed protocols and of raw connections.",
    );
    out.line("arp_bytes_total", &[("direction", "in")], status.bytes_in);
    out.line("arp_bytes_total", &[("direction", "out")], status.bytes_out);
    out.one(
        "arp_raw_connections",
        "gauge",
        "Open connections of other protocols than HTTP.",
        totals.raw_open(),
    );
    if !totals.raw.is_empty() {
        out.family(
            "arp_raw_connections_total",
            "counter",
            "Connections of other protocols than HTTP, by protocol or by the way they came.",
        );
    }
    for (protocol, n) in &totals.raw {
        out.line("arp_raw_connections_total", &[("protocol", protocol)], *n);
    }
    durations(&mut out, totals);
    out.family(
        "arp_refused_total",
        "counter",
        "What the relay refused, by reason.",
    );
    for refused in &status.refused {
        let labels = [("what", refused.what.as_str()), ("reason", refused.code.as_str())];
        out.line("arp_refused_total", &labels, refused.count);
    }
    out.family(
        "arp_handshakes_failed_total",
        "counter",
        "Connections that did not get as far as a registration, a tunnel or TLS.",
    );
    let f = &status.failed;
    for (port, n) in [("control", f.control), ("proxy", f.proxy), ("public", f.public)] {
        out.line("arp_handshakes_failed_total", &[("port", port)], n);
    }
    out.one(
        "arp_store_writable",
        "gauge",
        "1 if new names can be kept.",
        u8::from(status.store_writable),
    );
    let sum = |of: fn(&Day) -> u64| days.iter().map(of).sum::<u64>();
    out.family(
        "arp_lifetime_total",
        "counter",
        "Traffic of all days that are kept, across restarts.",
    );
    out.line("arp_lifetime_total", &[("of", "requests")], sum(|d| d.requests));
    out.line("arp_lifetime_total", &[("of", "bytes_in")], sum(|d| d.bytes_in));
    out.line("arp_lifetime_total", &[("of", "bytes_out")], sum(|d| d.bytes_out));
    out.line("arp_lifetime_total", &[("of", "refused")], sum(|d| d.refused));
    of_clients(&mut out, clients);
    if let Some(memory) = status.memory {
        out.one(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            memory,
        );
    }
    if let Some(descriptors) = status.descriptors {
        out.one("process_open_fds", "gauge", "Open file descriptors.", descriptors);
    }
    if let Some(cpu) = status.cpu {
        out.one("process_cpu_seconds_total", "counter", "Processor time.", cpu);
    }
    out.0
}

fn durations(out: &mut Text, totals: &Totals) {
    let name = "arp_request_duration_seconds";
    out.family(
        name,
        "histogram",
        "Time of exchanges, from the head of the request to the end of the answer.",
    );
    for class in Class::ALL {
        let durations = &totals.exchanges[class as usize];
        let mut below = 0;
        for (bound, n) in BOUNDS.iter().zip(durations.buckets) {
            below += n;
            let le = seconds(*bound);
            out.line(
                &format!("{name}_bucket"),
                &[("class", class.name()), ("le", &le)],
                below,
            );
        }
        let count = durations.count();
        out.line(
            &format!("{name}_bucket"),
            &[("class", class.name()), ("le", "+Inf")],
            count,
        );
        out.line(
            &format!("{name}_sum"),
            &[("class", class.name())],
            seconds(durations.micros),
        );
        out.line(&format!("{name}_count"), &[("class", class.name())], count);
    }
}

fn of_clients(out: &mut Text, clients: &[ClientRow]) {
    let mut rows: Vec<&ClientRow> = clients.iter().collect();
    rows.sort_by_key(|c| std::cmp::Reverse((c.traffic.bytes_in + c.traffic.bytes_out, c.traffic.requests)));
    let (own, rest) = rows.split_at(rows.len().min(CLIENTS));
    // Of those with the same beginning and no key only the first has series of its own: two of one name are an error.
    let mut seen = std::collections::BTreeSet::new();
    let mut lines = Vec::new();
    let mut others = [0; 3];
    for (row, may) in own
        .iter()
        .map(|r| (r, true))
        .chain(rest.iter().map(|r| (r, false)))
    {
        let values = [row.traffic.requests, row.traffic.bytes_in, row.traffic.bytes_out];
        let id: String = row.id.chars().take(SHOWN.min(row.id.len() / 3)).collect();
        let key: String = row.key.as_deref().map(short_key).unwrap_or_default();
        if may && seen.insert((id.clone(), key.clone())) {
            lines.push((id, key, usize::from(row.online), values));
        } else {
            for (sum, value) in others.iter_mut().zip(values) {
                *sum += value;
            }
        }
    }
    out.family(
        "arp_client_online",
        "gauge",
        "1 if the client is connected; clients with the most traffic.",
    );
    for (id, key, online, _) in &lines {
        out.line("arp_client_online", &[("client", id), ("key", key)], online);
    }
    for (at, name, help) in [
        (
            0,
            "arp_client_requests_total",
            "Exchanges by client; all but the largest are `other`.",
        ),
        (1, "arp_client_bytes_in_total", "Bytes from visitors by client."),
        (2, "arp_client_bytes_out_total", "Bytes to visitors by client."),
    ] {
        out.family(name, "counter", help);
        for (id, key, _, values) in &lines {
            out.line(name, &[("client", id), ("key", key)], values[at]);
        }
        out.line(name, &[("client", "other"), ("key", "")], others[at]);
    }
}

/// Enough of a fingerprint to tell keys apart.
fn short_key(key: &str) -> String {
    let hash = key.rsplit_once(':').map_or(key, |(_, hash)| hash);
    hash.chars().take(12).collect()
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{text}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Sums;

    fn row(n: u64) -> ClientRow {
        ClientRow {
            id: format!("c{n:03}-and-a-secret-rest"),
            key: Some(format!("SHA256:{n:020}")),
            names: 1,
            online: true,
            since: None,
            peer: None,
            agent: None,
            idle: 0,
            used: 0,
            waiting: 0,
            traffic: Sums {
                requests: 1,
                bytes_in: n,
                bytes_out: 0,
            },
        }
    }

    #[test]
    fn series_of_clients_are_bounded_distinct_and_tell_no_token() {
        let mut rows: Vec<_> = (0..250).map(row).collect();
        rows.extend((0..3).map(|_| ClientRow {
            key: None,
            ..row(900)
        }));
        let mut out = Text(String::new());
        of_clients(&mut out, &rows);
        let text = out.0;
        let series: Vec<_> = text
            .lines()
            .filter(|l| l.starts_with("arp_client_requests_total"))
            .collect();
        assert!(
            series.len() <= CLIENTS + 1 && series.len() > CLIENTS - 3,
            "{}",
            series.len()
        );
        let names: std::collections::BTreeSet<_> =
            series.iter().map(|l| l.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(names.len(), series.len());
        let sum: u64 = series
            .iter()
            .map(|l| l.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        assert_eq!(sum, 253, "nothing is lost in `other`");
        assert!(!text.contains("secret"));
    }

    #[test]
    fn times_and_labels_are_written_as_the_format_wants() {
        assert_eq!(
            [seconds(0), seconds(500), seconds(2_500_000)],
            ["0", "0.0005", "2.5"]
        );
        let mut out = Text(String::new());
        out.line("x", &[("a", "q\"\\\n"), ("b", "2")], 7);
        assert_eq!(out.0, "x{a=\"q\\\"\\\\\\n\",b=\"2\"} 7\n");
    }
}
