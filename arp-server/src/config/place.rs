//! Where the data directory is.

use crate::data;
use std::path::{Path, PathBuf};

/// That of the service which scripts/install.sh sets up (`StateDirectory=arps` of its unit).
const OF_THE_SERVICE: &str = "/var/lib/arps";

/// The data directory: as given, else where systemd says, else the user's.
pub fn data_dir(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
        .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.data_local_dir().join("arps")))
        .unwrap_or_else(|| PathBuf::from("arps-data"))
}

/// The data directory that a command means which asks a relay: [`data_dir`], but that of the installed service where it
/// runs and no relay of this user's own does, or where this user never ran one. So `sudo arps clients` speaks of the
/// relay that serves here.
pub fn data_dir_of_command(given: Option<PathBuf>) -> PathBuf {
    match given {
        Some(dir) => dir,
        None => one_of(data_dir(None), Path::new(OF_THE_SERVICE)),
    }
}

fn one_of(own: PathBuf, service: &Path) -> PathBuf {
    let runs = |dir: &Path| data::socket_file(dir).exists();
    // Of a directory that only the service may read, it can still be said that it is there.
    let is_meant = runs(service) || (service.is_dir() && !data::used_before(&own));
    if is_meant && !runs(&own) {
        service.to_owned()
    } else {
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_means_the_service_unless_there_is_a_relay_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let (own, service) = (dir.path().join("own"), dir.path().join("service"));
        assert_eq!(one_of(own.clone(), &service), own, "there is no service");
        std::fs::create_dir(&service).unwrap();
        assert_eq!(one_of(own.clone(), &service), service);
        drop(data::Data::open(&own).unwrap());
        assert_eq!(one_of(own.clone(), &service), own);
        std::fs::write(data::socket_file(&service), "").unwrap();
        assert_eq!(one_of(own.clone(), &service), service, "only that one runs");
        std::fs::write(data::socket_file(&own), "").unwrap();
        assert_eq!(one_of(own.clone(), &service), own);
        let given = Some(dir.path().to_owned());
        assert_eq!(data_dir_of_command(given), dir.path());
    }
}
