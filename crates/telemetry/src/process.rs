//! Figures about this process, read from `/proc`.
//!
//! Owns the reading and parsing. Refuses to know which metric shows them. On a system without
//! `/proc` every figure is `None`, and the metric stays at its last value.

use std::fs;

/// Resident memory in bytes.
///
/// From the `VmRSS` line of `/proc/self/status`: unlike `statm` it is not counted in pages, whose
/// size differs between machines and takes a system call to learn.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    parse_resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Open file descriptors, without the one that this reading opens.
#[must_use]
pub fn open_fds() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

fn parse_resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_line_is_read_in_bytes() {
        for (status, bytes) in [
            ("VmHWM:\t  9 kB\nVmRSS:\t   1234 kB\nRssAnon: 1 kB\n", Some(1234 * 1024)),
            ("VmHWM:\t9 kB\n", None),
            ("VmRSS:\t12 pages\n", None),
            ("VmRSS:\t18446744073709551615 kB\n", None),
        ] {
            assert_eq!(parse_resident_bytes(status), bytes, "{status}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_files() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(open_fds().is_some_and(|fds| fds > 0));
    }
}
