//! Who this machine is to a relay: a client id that stays the same without being stored.

use arp_common::ids::ClientId;
use arp_common::private;
use std::io;
use std::path::Path;
use uuid::Uuid;

/// Name space of derived client ids (UUID version 5).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1f_3a52_7d0b_4c6e_9a41_2f6d_8c57_e0b3);

/// Derives a client id from what distinguishes this machine and user: 32 upper-case hex digits.
pub fn derived_client_id() -> String {
    let parts = [
        host_name(),
        machine_id(),
        user(),
        std::env::consts::OS.into(),
        std::env::consts::ARCH.into(),
        distribution(),
    ];
    // A separator that none of the parts can hold keeps ("ab","c") apart from ("a","bc").
    let id = Uuid::new_v5(&NAMESPACE, parts.join("\0").as_bytes());
    format!("{:X}", id.simple())
}

fn host_name() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

fn machine_id() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid"]
        .iter()
        .find_map(|path| std::fs::read(path).ok().filter(|id| !id.is_empty()))
        .map(|id| String::from_utf8_lossy(&id).trim().to_owned())
        .unwrap_or_default()
}

fn user() -> String {
    // The numeric id cannot be changed by the environment, which differs between a shell and a service.
    #[cfg(unix)]
    return rustix::process::getuid().as_raw().to_string();
    #[cfg(not(unix))]
    std::env::var("USERNAME").unwrap_or_default()
}

/// Name of the distribution without its version, which changes with an upgrade.
fn distribution() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let id = release
        .lines()
        .find_map(|line| line.strip_prefix("ID="))
        .unwrap_or_default();
    id.trim_matches('"').to_owned()
}

/// Writes the small file from which scripts read the client id, `.arp-client/config` in the home directory:
/// `grep client-id ~/.arp-client/config` is one line, `client-id=ID`, which the relay takes for a token as it
/// stands. Of several edge agents of one user the one that started last stands there.
///
/// # Errors
/// If it cannot be written.
pub fn write_card(home: &Path, id: &ClientId) -> io::Result<()> {
    let dir = home.join(".arp-client");
    let path = dir.join("config");
    let text = format!(
        "# Written by arpc at its start. Whoever knows the id can visit.\nclient-id={}\n",
        id.as_str()
    );
    if private::read(&path, text.len()).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    private::create_dir(&dir)?;
    private::replace(&path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_stands_alone_on_the_line_that_names_it() {
        let home = tempfile::tempdir().unwrap();
        for id in ["one", "two", "two"] {
            write_card(home.path(), &id.parse().unwrap()).unwrap();
        }
        let text = std::fs::read_to_string(home.path().join(".arp-client/config")).unwrap();
        let grepped: Vec<&str> = text.lines().filter(|l| l.contains("client-id")).collect();
        assert_eq!(grepped, ["client-id=two"]);
    }

    #[test]
    fn the_derived_id_is_stable_and_of_the_promised_form() {
        let id = derived_client_id();
        assert_eq!(id, derived_client_id());
        assert_eq!(id.len(), 32);
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)),
            "{id}"
        );
    }
}
