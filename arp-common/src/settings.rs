//! Settings that can be given as flags, environment variables or lines of a TOML file: one list of fields
//! serves all three.

mod file;

pub use file::{Table, Words};

/// Declares `struct Settings` whose fields are all optional: clap reads flags and environment into one,
/// [`Table`] a file into another, and `or` merges them. The caller's crate needs `clap`.
#[macro_export]
macro_rules! settings {
    ($($(#[$meta:meta])* $field:ident: $ty:ty,)+) => {
        /// Everything that can be set, as it was set in one place; `None` where it was not.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args)]
        pub struct Settings {
            $($(#[$meta])* pub $field: Option<$ty>,)+
        }

        impl Settings {
            /// The keys that a file may have.
            pub fn keys() -> Vec<String> {
                vec![$($crate::settings::key_of(stringify!($field)),)+]
            }

            /// The keys that a file may have, each with a value that it could have.
            pub fn examples() -> Vec<(String, &'static str)> {
                vec![$($crate::selfdoc::keyed::<$ty>(stringify!($field)),)+]
            }

            /// These, and where they are silent the `other` ones.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)+ }
            }

            /// Reads a TOML file.
            ///
            /// # Errors
            /// All that is wrong with it, each with its line.
            pub fn from_file(path: &std::path::Path) -> Result<Self, $crate::settings::ConfigError> {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    $crate::settings::ConfigError(vec![format!("--config {}: {e}", path.display())])
                })?;
                Self::from_toml(&text, &path.display().to_string())
            }

            /// Reads the text of a TOML file, which is called `name` in messages.
            ///
            /// # Errors
            /// All that is wrong with it, each with its line.
            pub fn from_toml(text: &str, name: &str) -> Result<Self, $crate::settings::ConfigError> {
                let mut table = $crate::settings::Table::parse(text, name)?;
                let settings = Self { $($field: table.take(stringify!($field)),)+ };
                table.finish(&Self::keys())?;
                Ok(settings)
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

/// The key in a file of a field.
pub fn key_of(field: &str) -> String {
    field.trim_start_matches("r#").replace('_', "-")
}

/// An error with its causes, each told once: many errors have the text of their cause in their own.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        next = cause.source();
    }
    text
}

/// Exit code of a daemon that was called wrongly, as clap uses it.
pub const EXIT_USAGE: u8 = 2;

/// Reads a time such as `90s`, `30m`, `12h`, `7d`, `8w`; in seconds.
///
/// # Errors
/// If it is none.
pub fn duration(text: &str) -> Result<u64, String> {
    let bad = || format!("{text}: not a time such as 90s, 30m, 12h, 7d or 8w");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(bad)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|s| *s > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open it: {0}")]
        struct Inside(#[from] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start")]
        struct Outside(#[source] Inside);
        let error = Outside(Inside(std::io::Error::other("no such thing")));
        assert_eq!(with_causes(&error), "cannot start: cannot open it: no such thing");
    }

    #[test]
    fn times_are_understood() {
        assert_eq!(
            (duration("90s"), duration("7d"), duration("2w")),
            (Ok(90), Ok(604_800), Ok(1_209_600))
        );
        for bad in ["", "7", "d", "0h", "-1d", "7 d", "1ä", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
