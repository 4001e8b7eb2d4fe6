//! What the system tells of this process; nothing where it has no /proc.

/// Resident memory in bytes.
pub(super) fn memory() -> Option<u64> {
    let pages = field("/proc/self/statm", 1)?;
    #[cfg(unix)]
    {
        Some(pages * rustix::param::page_size() as u64)
    }
    #[cfg(not(unix))]
    {
        let _ = pages;
        None
    }
}

/// Open file descriptors.
pub(super) fn descriptors() -> Option<u64> {
    // One of them is the directory itself.
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(open.saturating_sub(1) as u64)
}

/// Seconds of processor time, in user space and in the kernel.
pub(super) fn cpu() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may have blanks and ends with the last bracket; utime and stime are fields 14 and 15.
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    #[cfg(target_os = "linux")]
    {
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = ticks;
        None
    }
}

fn field(file: &str, n: usize) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.split_ascii_whitespace().nth(n)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_tells() {
        assert!(memory().unwrap() > 1 << 20);
        assert!(descriptors().unwrap() >= 3);
        assert!(cpu().unwrap() >= 0.0);
    }
}
