//! What each system wants to be told of a service, as texts. Nothing here touches the system.

use std::path::Path;

/// The service's name on systemd and Windows, and the last part of its label on macOS.
pub(super) const NAME: &str = "arpc";
/// Its label on macOS.
pub(super) const LABEL: &str = "dev.arp.arpc";

/// The unit of a systemd user manager, for a program with its arguments.
pub(super) fn systemd(program: &Path, args: &[String]) -> String {
    const UNIT: &str = include_str!("../../../../deploy/systemd/arpc.service");
    let command = std::iter::once(program.to_string_lossy().into_owned()).chain(args.iter().cloned());
    let command: Vec<String> = command.map(|word| systemd_word(&word)).collect();
    let line = |line: &str| match line.strip_prefix("ExecStart=") {
        Some(_) => format!("ExecStart={}", command.join(" ")),
        None => line.to_owned(),
    };
    // What the file says of itself does not hold for this one.
    let lines = UNIT.lines().skip_while(|l| l.starts_with('#')).map(line);
    let head = "# Written by `arpc service install`; `arpc service uninstall` removes it.".to_owned();
    std::iter::once(head)
        .chain(lines)
        .fold(String::new(), |text, line| text + &line + "\n")
}

/// One word of a command line as systemd reads it (systemd.service(5), "Command lines").
fn systemd_word(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The property list of a launchd agent (launchd.plist(5)).
pub(super) fn launchd(program: &Path, args: &[String], log: &Path) -> String {
    let words = std::iter::once(program.to_string_lossy().into_owned()).chain(args.iter().cloned());
    let words: String = words
        .map(|w| format!("        <string>{}</string>\n", xml(&w)))
        .collect();
    let log = xml(&log.to_string_lossy());
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>{LABEL}</string>
    <key>ProgramArguments</key>
    <array>
{words}    </array>
    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ProcessType</key>
    <string>Background</string>
    <key>AbandonProcessGroup</key>
    <true/>
    <key>StandardErrorPath</key>
    <string>{log}</string>
</dict>
</plist>
"#
    )
}

/// The definition of a task of Windows that runs while its user is logged on, for `schtasks /Create /XML`.
pub(super) fn windows(program: &Path, args: &[String], user: &str) -> String {
    let arguments: Vec<String> = args.iter().map(|a| windows_word(a)).collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>arpc, the edge agent of arp</Description></RegistrationInfo>
  <Triggers><LogonTrigger><Enabled>true</Enabled><UserId>{user}</UserId></LogonTrigger></Triggers>
  <Principals><Principal id="Author"><UserId>{user}</UserId><LogonType>InteractiveToken</LogonType><RunLevel>LeastPrivilege</RunLevel></Principal></Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
  </Settings>
  <Actions Context="Author"><Exec><Command>{program}</Command><Arguments>{arguments}</Arguments></Exec></Actions>
</Task>
"#,
        user = xml(user),
        program = xml(&program.to_string_lossy()),
        arguments = xml(&arguments.join(" "))
    )
}

/// One word of a command line as Windows programs take it apart (CommandLineToArgvW).
fn windows_word(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    let (mut quoted, mut backslashes) = (String::from("\""), 0);
    for c in word.chars() {
        match c {
            '\\' => backslashes += 1,
            '"' => {
                quoted.push_str(&"\\".repeat(2 * backslashes + 1));
                quoted.push('"');
                backslashes = 0;
            }
            c => {
                quoted.push_str(&"\\".repeat(backslashes));
                quoted.push(c);
                backslashes = 0;
            }
        }
    }
    quoted.push_str(&"\\".repeat(2 * backslashes));
    quoted + "\""
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = r#"a "b" \c\ $HOME %h <&>"#;

    fn args() -> Vec<String> {
        ["--server-addr", "relay.example", "--command-path", NASTY]
            .map(str::to_owned)
            .into()
    }

    #[test]
    fn systemd_gets_each_word_as_it_is() {
        let unit = systemd(Path::new("/home/a b/arpc"), &args());
        let start: Vec<_> = unit.lines().filter(|l| l.starts_with("ExecStart=")).collect();
        let wanted = r#"ExecStart="/home/a b/arpc" "--server-addr" "relay.example" "--command-path" "a \"b\" \\c\\ $$HOME %%h <&>""#;
        assert_eq!(start, [wanted]);
        for line in [
            "[Unit]",
            "Type=notify",
            "KillMode=process",
            "WantedBy=default.target",
        ] {
            assert!(unit.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn launchd_gets_a_list_of_strings() {
        let list = launchd(Path::new("/a&b/arpc"), &args(), Path::new("/logs/arpc.err"));
        assert!(
            list.contains("<string>/a&amp;b/arpc</string>\n        <string>--server-addr</string>"),
            "{list}"
        );
        assert!(
            list.contains(r#"<string>a &quot;b&quot; \c\ $HOME %h &lt;&amp;&gt;</string>"#),
            "{list}"
        );
        assert!(
            list.contains("<key>AbandonProcessGroup</key>"),
            "sessions outlive it"
        );
    }

    #[test]
    fn windows_gets_a_command_line() {
        for (word, wanted) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            (r#"a "b""#, r#""a \"b\"""#),
            (r"c:\dir x\", r#""c:\dir x\\""#),
            (r#"a\" b"#, r#""a\\\" b""#),
        ] {
            assert_eq!(windows_word(word), wanted, "{word}");
        }
        let task = windows(Path::new(r"C:\arpc.exe"), &args(), "PC\\me");
        assert!(
            task.contains("<Arguments>--server-addr relay.example --command-path &quot;a \\&quot;b"),
            "{task}"
        );
    }
}
