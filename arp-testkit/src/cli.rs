//! The real agent CLIs in tests: where they are, and homes in which they talk to the loopback model API.

use crate::model_api::ModelApi;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The CLIs that tests drive, with the versions that `scripts/test.sh` installs.
const PACKAGES: &str = "@anthropic-ai/claude-code@2.1.329 @openai/codex@0.169.0 @google/gemini-cli@0.61.0";

/// Where `binary` (`claude`, `codex`, `gemini`) is: in the directory that `ARP_TEST_AGENTS` names, in the
/// repository's cache, or in `PATH`. `None`, with a loud message, when it is nowhere.
///
/// # Panics
/// When it is nowhere and `CI` is `true`: there, a test that is skipped is a test that is lost.
#[must_use]
pub fn find(binary: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ARP_TEST_AGENTS").map(PathBuf::from);
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/agents/node_modules/.bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = named
        .into_iter()
        .chain([cached])
        .chain(std::env::split_paths(&path));
    if let Some(found) = places
        .map(|place| place.join(binary))
        .find(|candidate| candidate.is_file())
    {
        return Some(found);
    }
    let how = format!(
        "`{binary}` was not found. Install it with `npm install --prefix .cache/agents --save-exact {PACKAGES}`, or \
         name a directory that has it in ARP_TEST_AGENTS."
    );
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{how}");
    eprintln!("\n*** SKIPPED: {how} ***\n");
    None
}

/// A home directory of its own for the CLIs, with a git project in it, all pointed at a model API.
#[derive(Debug)]
pub struct Home {
    root: TempDir,
    env: Vec<(OsString, OsString)>,
}

impl Home {
    /// Makes one. Nothing of the user's own homes is read or written by what runs with [`Self::env`].
    ///
    /// # Panics
    /// When the directory for temporary files cannot be written.
    #[must_use]
    pub fn new(api: &ModelApi) -> Self {
        let root = tempfile::Builder::new()
            .prefix("arp-home-")
            .tempdir()
            .expect("a temporary directory");
        let url = api.url();
        write(root.path(), ".gemini/settings.json", GEMINI_SETTINGS);
        write(root.path(), ".codex/config.toml", &codex_config(&url));
        let home = Self {
            env: environment(root.path(), &url),
            root,
        };
        home.git_project();
        home
    }

    /// The home directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// A project in it, which is a git repository with a `README.md` of one line, `# demo`.
    #[must_use]
    pub fn project(&self) -> PathBuf {
        // Resolved, because that is the form in which agents tell where they work.
        self.path()
            .join("project")
            .canonicalize()
            .expect("the project was made")
    }

    /// A further directory in it, empty and no repository.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).expect("a directory in the home");
        path.canonicalize().expect("the directory was made")
    }

    /// Environment variables for the CLIs. Those that are not named here are best not inherited, except
    /// `PATH`.
    #[must_use]
    pub fn env(&self) -> &[(OsString, OsString)] {
        &self.env
    }

    fn git_project(&self) {
        write(self.path(), "project/README.md", "# demo\n");
        let git = std::process::Command::new("git")
            .args(["init", "-q"])
            .current_dir(self.path().join("project"))
            .status();
        assert!(
            git.is_ok_and(|status| status.success()),
            "`git init` failed; is git installed?"
        );
    }
}

/// Without a settings file Gemini asks how to log in; its own retries last minutes.
const GEMINI_SETTINGS: &str = r#"{
  "security": {"auth": {"selectedType": "gemini-api-key"}},
  "privacy": {"usageStatisticsEnabled": false},
  "telemetry": {"enabled": false},
  "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false, "maxAttempts": 2}
}
"#;

fn codex_config(url: &str) -> String {
    // With analytics on, every run hangs for seconds where there is no network.
    format!(
        r#"model = "gpt-5.5"
model_provider = "fake"

[model_providers.fake]
name = "fake"
base_url = "{url}/v1"
env_key = "FAKE_KEY"
wire_api = "responses"
supports_websockets = false

[analytics]
enabled = false
"#
    )
}

fn environment(home: &Path, url: &str) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = [
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
        ("ANTHROPIC_API_KEY", "-"),
        ("FAKE_KEY", "-"),
        ("GEMINI_API_KEY", "-"),
        ("ANTHROPIC_BASE_URL", url),
        ("GOOGLE_GEMINI_BASE_URL", url),
    ]
    .iter()
    .map(|(key, value)| (key.into(), value.into()))
    .collect();
    env.push(("HOME".into(), home.into()));
    env.push(("CODEX_HOME".into(), home.join(".codex").into()));
    env
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a directory in the home");
    }
    fs::write(&path, text).expect("a file in the home");
}
