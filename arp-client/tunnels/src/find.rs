//! Where a backend's program is, and how it is installed where it is not.

use crate::{Backend, TunnelError};
use std::path::{Path, PathBuf};

/// The program of a backend: as configured, else from `PATH` and the usual places.
pub(crate) fn program(backend: Backend, name: &str, given: Option<&Path>) -> Result<PathBuf, TunnelError> {
    if let Some(given) = given {
        return in_path(&given.to_string_lossy()).ok_or_else(|| {
            TunnelError::fatal(
                format!("there is no program {}", given.display()),
                format!("correct its place in [tunnel.{backend}]"),
            )
        });
    }
    in_path(name)
        .or_else(|| usual_places(name).into_iter().find(|path| path.is_file()))
        .ok_or_else(|| TunnelError::fatal(format!("{name} is not installed"), install_hint(backend, name)))
}

/// A program by its name in `PATH`, or by its path.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let as_path = Path::new(name);
    let suffix = std::env::consts::EXE_SUFFIX;
    let with_suffix = |path: PathBuf| {
        let exe = path.with_file_name(format!(
            "{}{suffix}",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        [path, exe].into_iter().find(|path| path.is_file())
    };
    if as_path.components().count() > 1 {
        return with_suffix(std::path::absolute(as_path).ok()?);
    }
    let dirs = std::env::var_os("PATH")?;
    std::env::split_paths(&dirs)
        .filter(|dir| dir.is_absolute())
        .find_map(|dir| with_suffix(dir.join(name)))
}

/// Where package managers and installers put programs that a service's short `PATH` does not hold.
fn usual_places(name: &str) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if cfg!(target_os = "macos") {
        places.push(PathBuf::from("/opt/homebrew/bin").join(name));
        places.push(PathBuf::from("/usr/local/bin").join(name));
        if name == "tailscale" {
            places.push("/Applications/Tailscale.app/Contents/MacOS/Tailscale".into());
        }
    }
    if cfg!(windows) {
        match name {
            "tailscale" => places.push(r"C:\Program Files\Tailscale\tailscale.exe".into()),
            "cloudflared" => places.push(r"C:\Program Files (x86)\cloudflared\cloudflared.exe".into()),
            _ => {}
        }
    }
    if cfg!(unix)
        && let Some(home) = std::env::home_dir()
    {
        places.push(home.join(".cargo/bin").join(name));
        places.push(home.join(".local/bin").join(name));
    }
    places
}

/// What to install, on this system.
pub(crate) fn install_hint(backend: Backend, name: &str) -> String {
    let (mac, windows, linux) = match backend {
        Backend::Cloudflare => (
            "brew install cloudflared",
            "winget install --id Cloudflare.cloudflared",
            "install cloudflared: https://pkg.cloudflare.com (Debian, Ubuntu, RHEL), or the program itself from \
             https://github.com/cloudflare/cloudflared/releases",
        ),
        Backend::Tailscale => (
            "brew install tailscale, then sudo tailscaled install-system-daemon and tailscale up",
            "winget install --id Tailscale.Tailscale, then tailscale up",
            "curl -fsSL https://tailscale.com/install.sh | sh, then sudo tailscale up",
        ),
        Backend::Ngrok => (
            "brew install ngrok, then set NGROK_AUTHTOKEN (https://dashboard.ngrok.com)",
            "winget install --id Ngrok.Ngrok, then set NGROK_AUTHTOKEN (https://dashboard.ngrok.com)",
            "install ngrok: https://ngrok.com/download, then set NGROK_AUTHTOKEN (https://dashboard.ngrok.com)",
        ),
        Backend::Bore => (
            "brew install bore-cli",
            "cargo install bore-cli",
            "cargo install bore-cli, or the program itself from https://github.com/ekzhang/bore/releases",
        ),
        Backend::Custom | Backend::Arp | Backend::Auto | Backend::None => {
            return format!("install {name}, or write its whole path into [tunnel.{backend}] command");
        }
    };
    let hint = if cfg!(target_os = "macos") {
        mac
    } else if cfg!(windows) {
        windows
    } else {
        linux
    };
    hint.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_how_to_get_it() {
        let error = program(Backend::Cloudflare, "no-such-cloudflared", None).unwrap_err();
        assert!(error.message.contains("not installed") && error.fix.unwrap().contains("cloudflared"));
        let error = program(Backend::Bore, "bore", Some(Path::new("/no/bore"))).unwrap_err();
        assert!(error.message.contains("/no/bore"));
        #[cfg(unix)]
        assert_eq!(in_path("sh").map(|path| path.is_absolute()), Some(true));
    }
}
