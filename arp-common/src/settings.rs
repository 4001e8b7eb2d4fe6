//! Settings that can be given as flags, environment variables or lines of a TOML file: one list of fields
//! serves all three.

/// Declares `struct Settings` whose fields are all optional: clap reads flags and environment into one,
/// serde a file into another, and `or` merges them. The caller's crate needs `clap` and `serde`.
#[macro_export]
macro_rules! settings {
    ($($(#[$meta:meta])* $field:ident: $ty:ty,)+) => {
        /// Everything that can be set, as it was set in one place; `None` where it was not.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args, serde::Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct Settings {
            $($(#[$meta])* pub $field: Option<$ty>,)+
        }

        impl Settings {
            /// These, and where they are silent the `other` ones.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)+ }
            }

            /// Reads a TOML file.
            ///
            /// # Errors
            /// If it cannot be read or understood.
            pub fn from_file(path: &std::path::Path) -> Result<Self, $crate::settings::ConfigError> {
                let fault = |e: &dyn std::fmt::Display| {
                    $crate::settings::ConfigError(vec![format!("{}: {e}", path.display())])
                };
                let text = std::fs::read_to_string(path).map_err(|e| fault(&e))?;
                toml::from_str(&text).map_err(|e| fault(&e))
            }
        }
    };
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Exit code of a daemon that was called wrongly, as clap uses it.
pub const EXIT_USAGE: u8 = 2;
