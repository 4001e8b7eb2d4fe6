//! Ports for servers that are ended and started again at the same place.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::TcpListener;

/// Below those that systems give to outgoing connections, which take a port for good that was free a moment ago.
const RANGE: std::ops::Range<u16> = 18_000..32_000;

/// A port that nobody listens on. Nobody else who asks here gets it until thousands of others were given out: all test
/// programs of a checkout count on in one file beside them, which is of who built them.
///
/// # Panics
/// When that file cannot be written, or no port is free.
#[must_use]
pub fn free() -> u16 {
    let program = std::env::current_exe().expect("a test program");
    let path = program.with_file_name("arp-test-ports");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.lock().expect("the only one");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("a number");
    let mut last = text.trim().parse().unwrap_or(RANGE.start);
    for _ in RANGE {
        last = if RANGE.contains(&(last + 1)) {
            last + 1
        } else {
            RANGE.start
        };
        if TcpListener::bind(("127.0.0.1", last)).is_ok() {
            file.rewind().expect("the beginning");
            // All numbers have as many digits.
            file.write_all(last.to_string().as_bytes()).expect("written");
            return last;
        }
    }
    panic!("no free port from {} to {}", RANGE.start, RANGE.end);
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_is_given_the_port_of_another() {
        let threads = [(); 8].map(|()| std::thread::spawn(|| [(); 50].map(|()| super::free())));
        let mut all: Vec<u16> = threads.into_iter().flat_map(|one| one.join().unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8 * 50);
    }
}
