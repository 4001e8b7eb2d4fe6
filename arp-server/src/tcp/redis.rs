//! Redis by token: the name comes in the first `AUTH` or `HELLO`, as a part of the user or the password, and is taken
//! out of it. A password that is left goes to the server.
//!
//! Source of the formats: Redis's "RESP protocol spec", and its pages of the two commands.

use super::carry::carry;
use super::line::Line;
use super::token::{self, Ours};
use crate::answer::Refusal;
use crate::defaults as d;
use crate::metrics;
use crate::registry::Spelling;
use arp_common::stop::Stop;
use bytes::{BufMut, Bytes, BytesMut};

/// Most arguments of a command before the name is known.
const MAX_ARGUMENTS: usize = 16;
/// Most commands before it is.
const MAX_COMMANDS: usize = 16;

const NO_TOKEN: &[u8] =
    b"-NOAUTH this address needs a token: AUTH ?token=NAME (redis-cli -a '?token=NAME')\r\n";
const MALFORMED: &[u8] = b"-ERR Protocol error: not a command as an array of strings\r\n";

/// What a command is for us.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It names the client; this is what is left of it for the server. Nothing is left of an `AUTH` without a
    /// password, which we answer.
    Named(Ours, Option<BytesMut>),
    /// The visitor leaves.
    Quit,
    /// It says nothing of a name.
    Other,
}

/// Serves a connection that begins with a command.
pub(super) async fn serve(mut line: Line, stop: &Stop) {
    line.hurry();
    for _ in 0..MAX_COMMANDS {
        let arguments = loop {
            match parse(&line.buf) {
                Ok(Some((arguments, length))) => {
                    let _ = line.buf.split_to(length);
                    break arguments;
                }
                Ok(None) if stop.is_given() => return,
                Ok(None) => {
                    if !line.more(d::MAX_PREAMBLE).await {
                        return line.farewell(MALFORMED).await;
                    }
                }
                Err(()) => return line.farewell(MALFORMED).await,
            }
        };
        match step(&arguments) {
            Step::Named(ours, left) => return go(line, &ours, left).await,
            Step::Quit => return line.farewell(b"+OK\r\n").await,
            Step::Other => {
                if line.say(NO_TOKEN).await.is_err() {
                    return;
                }
            }
        }
    }
    line.farewell(NO_TOKEN).await;
}

async fn go(line: Line, ours: &Ours, left: Option<BytesMut>) {
    let (ip, peer) = (line.visitor.ip, line.peer);
    let reached = match line.public.reach(&ours.name, Spelling::Exact, ip, peer).await {
        Ok(reached) => reached,
        Err(refusal) => return refuse(line, &refusal).await,
    };
    match reached.open(&ours.key.clone().into()).await {
        Ok(opened) => {
            let answer = if left.is_none() { &b"+OK\r\n"[..] } else { b"" };
            carry(
                line,
                reached,
                opened,
                "redis",
                left.unwrap_or_default(),
                BytesMut::from(answer),
            )
            .await;
        }
        Err(refusal) => refuse(line, &refusal).await,
    }
}

async fn refuse(line: Line, refusal: &Refusal) {
    metrics::refused("raw", refusal.code);
    let kind = if refusal.status == 404 { "WRONGPASS" } else { "ERR" };
    let text = format!("-{kind} {}: {}\r\n", refusal.code, refusal.message);
    line.farewell(text.as_bytes()).await;
}

/// Reads a command, if it is complete, and tells its length in bytes.
fn parse(buf: &[u8]) -> Result<Option<(Vec<Bytes>, usize)>, ()> {
    let mut rest = buf;
    let Some(count) = number(&mut rest, b'*')? else {
        return Ok(None);
    };
    if !(1..=MAX_ARGUMENTS).contains(&count) {
        return Err(());
    }
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(length) = number(&mut rest, b'$')? else {
            return Ok(None);
        };
        if length > d::MAX_PREAMBLE {
            return Err(());
        }
        let Some((argument, after)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        match after {
            [b'\r', b'\n', ..] => rest = &after[2..],
            [] | [b'\r'] => return Ok(None),
            _ => return Err(()),
        }
        arguments.push(Bytes::copy_from_slice(argument));
    }
    Ok(Some((arguments, buf.len() - rest.len())))
}

/// Takes a line of a number off the front.
fn number(rest: &mut &[u8], kind: u8) -> Result<Option<usize>, ()> {
    /// Digits that any number here may have.
    const DIGITS: usize = 7;
    let Some((first, digits)) = rest.split_first() else {
        return Ok(None);
    };
    if *first != kind {
        return Err(());
    }
    let end = digits
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(digits.len());
    if end > DIGITS {
        return Err(());
    }
    match digits[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] if end > 0 => {
            let text = std::str::from_utf8(&digits[..end]).map_err(|_| ())?;
            *rest = &digits[end + 2..];
            text.parse().map(Some).map_err(|_| ())
        }
        _ => Err(()),
    }
}

fn step(arguments: &[Bytes]) -> Step {
    let is = |at: usize, word: &str| {
        arguments
            .get(at)
            .is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()))
    };
    if is(0, "quit") {
        return Step::Quit;
    }
    // Where user and password stand, the user first if there is one.
    let place = if is(0, "auth") {
        1..arguments.len().min(3)
    } else if is(0, "hello") {
        match (2..arguments.len()).find(|at| is(*at, "auth")) {
            Some(at) if at + 2 < arguments.len() => at + 1..at + 3,
            _ => return Step::Other,
        }
    } else {
        return Step::Other;
    };
    for at in place.clone() {
        let Some((ours, left)) = std::str::from_utf8(&arguments[at]).ok().and_then(token::take) else {
            continue;
        };
        let mut all = arguments.to_vec();
        all[at] = Bytes::from(left);
        let password = place.end - 1;
        if !all[password].is_empty() {
            // A user of which nothing is left is the usual one.
            if password > place.start && all[place.start].is_empty() {
                all[place.start] = Bytes::from_static(b"default");
            }
            return Step::Named(ours, Some(command(&all)));
        }
        if is(0, "auth") {
            return Step::Named(ours, None);
        }
        // Without credentials: the word and what stood behind it go.
        all.drain(place.start - 1..place.end);
        return Step::Named(ours, Some(command(&all)));
    }
    Step::Other
}

fn command(arguments: &[Bytes]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.put_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|w| Bytes::from(w.to_owned())).collect()
    }

    #[test]
    fn the_token_is_found_in_both_commands_and_taken_out() {
        for (given, name, left) in [
            ("AUTH ?token=cache", "cache", None),
            ("auth s3cret?token=cache", "cache", Some("auth s3cret")),
            ("AUTH bob ?token=cache", "cache", None),
            ("AUTH bob pw?token=cache", "cache", Some("AUTH bob pw")),
            ("AUTH bob?token=cache pw", "cache", Some("AUTH bob pw")),
            ("AUTH ?token=cache pw", "cache", Some("AUTH default pw")),
            ("HELLO 3 AUTH default ?token=cache", "cache", Some("HELLO 3")),
            (
                "HELLO 3 AUTH bob pw?token=cache SETNAME x",
                "cache",
                Some("HELLO 3 AUTH bob pw SETNAME x"),
            ),
            (
                "HELLO 3 AUTH d ?token=cache SETNAME x",
                "cache",
                Some("HELLO 3 SETNAME x"),
            ),
        ] {
            let Step::Named(ours, rest) = step(&words(given)) else {
                panic!("{given}")
            };
            assert_eq!(ours.name, name);
            assert_eq!(rest, left.map(|l| command(&words(l))), "{given}");
        }
        for other in [
            "PING",
            "AUTH secret",
            "HELLO 3",
            "HELLO",
            "HELLO 3 AUTH x",
            "SET x ?token=y",
            "AUTH",
        ] {
            assert_eq!(step(&words(other)), Step::Other, "{other}");
        }
        assert_eq!(step(&words("quit")), Step::Quit);
    }

    #[test]
    fn commands_are_read_at_every_split() {
        let bytes = command(&words("AUTH ?token=cache"));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (arguments, length) = parse(&[&bytes[..], b"*1\r\n"].concat()).unwrap().unwrap();
        assert_eq!((arguments, length), (words("AUTH ?token=cache"), bytes.len()));
        for bad in [
            "*0\r\n",
            "*-1\r\n",
            "*99\r\n",
            "*1\r\n$-1\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n$1\r\nab\r\n",
            "*1\n",
            "x",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_refused(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), b'0'..=b'9'], 0..80)) {
            if let Ok(Some((arguments, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && !arguments.is_empty());
                let _ = step(&arguments);
            }
        }
    }
}
