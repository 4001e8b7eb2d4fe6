//! `clp`: the gateway's commands that CLP's users know, carried out by `arpc`.

use arp_shims::become_arpc;
use std::ffi::OsString;
use std::process::ExitCode;

const USAGE: &str = "clp: the model gateway of arpc under the name that you know

  clp start | stop | restart | status | ui
  clp list [claude|codex|gemini]
  clp active claude|codex|gemini NAME
  clp add | remove | test | import           upstreams, from the command line
  clp setup claude|codex|gemini              puts the gateway into an agent's settings
  clp server [--detach]                      in the foreground, or as clp start

Files are those of ~/.clp (CLP_HOME=DIR for another folder). Everything else is in arpc: see arpc gateway --help.";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|first| first.to_str()) {
        None | Some("help" | "--help" | "-h") if args.len() < 2 => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some("--version" | "-V") => become_arpc("clp", vec!["--version".into()]),
        _ => {
            let mut all = vec![OsString::from("gateway")];
            all.extend(args);
            become_arpc("clp", all)
        }
    }
}
