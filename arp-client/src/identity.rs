//! Who this machine is to a relay: a client id that stays the same, and that only this user can know.

use arp_common::ids::ClientId;
use arp_common::private;
use std::io;
use std::path::Path;
use uuid::Uuid;

/// Name space of derived client ids (UUID version 5).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1f_3a52_7d0b_4c6e_9a41_2f6d_8c57_e0b3);

/// File in the data directory that holds what only this user knows.
const SECRET_FILE: &str = "client-id.secret";
/// What stands in it where the id was derived without one, before there was such a file.
const WITHOUT: &str = "none";
/// Files that an installation has which was there before.
const OLDER_FILES: [&str; 3] = ["edge-key.pem", "known_relays", "sessions.sqlite"];
/// Largest secret, in bytes.
const MAX_SECRET: usize = 1024;

/// Has [`client_id`] been asked for with this data directory?
pub fn has_client_id(data_dir: &Path) -> bool {
    data_dir.join(SECRET_FILE).exists()
}

/// The client id of this machine and user: 32 upper-case hex digits, derived from what distinguishes them and from a
/// secret of the data directory, which is made here where there is none. An id that is there already stays.
///
/// # Errors
/// If the secret can be neither read nor written.
pub fn client_id(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(SECRET_FILE);
    let secret = match private::read(&path, MAX_SECRET) {
        Ok(secret) => secret,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let older = OLDER_FILES.iter().any(|file| data_dir.join(file).exists());
            let secret = if older {
                WITHOUT.to_owned()
            } else {
                format!("{:032x}", rand::random::<u128>())
            };
            private::create_dir(data_dir)?;
            // Of two that start at once one makes it, and both read it.
            private::create(&path, format!("{secret}\n").as_bytes())?;
            private::read(&path, MAX_SECRET)?
        }
        Err(e) => return Err(e),
    };
    match String::from_utf8_lossy(&secret).trim() {
        "" => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} is empty: put back what was in it, remove it to get another client id, or give --client-id",
                path.display()
            ),
        )),
        WITHOUT => Ok(derived(None)),
        secret => Ok(derived(Some(secret))),
    }
}

fn derived(secret: Option<&str>) -> String {
    let mut parts = vec![
        host_name(),
        machine_id(),
        user(),
        std::env::consts::OS.into(),
        std::env::consts::ARCH.into(),
        distribution(),
    ];
    parts.extend(secret.map(str::to_owned));
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
    fn the_derived_id_is_stable_of_the_promised_form_and_not_to_be_computed_by_others() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = client_id(&one.path().join("new")).unwrap();
        assert_eq!(id, client_id(&one.path().join("new")).unwrap());
        assert_eq!(id.len(), 32);
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)),
            "{id}"
        );
        assert_ne!(id, client_id(other.path()).unwrap());
        assert_ne!(id, derived(None));
    }

    #[test]
    fn an_id_that_exists_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("edge-key.pem"), "a key").unwrap();
        assert_eq!(client_id(dir.path()).unwrap(), derived(None));
        std::fs::remove_file(dir.path().join("edge-key.pem")).unwrap();
        assert_eq!(client_id(dir.path()).unwrap(), derived(None));
    }

    #[test]
    fn an_emptied_secret_is_told_and_not_taken_for_another_id() {
        let dir = tempfile::tempdir().unwrap();
        client_id(dir.path()).unwrap();
        std::fs::write(dir.path().join(SECRET_FILE), "").unwrap();
        let told = client_id(dir.path()).unwrap_err().to_string();
        assert!(told.contains("--client-id"), "{told}");
    }
}
