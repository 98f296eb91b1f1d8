//! Figures about this process, read from `/proc`.
//!
//! Owns the reading and parsing. Refuses to know which metric shows them. On a system without
//! `/proc` every figure is `None`, and the metric stays at its last value.

use std::fs;

/// What the process holds of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All of it, with the pages of its program file.
    pub resident_bytes: u64,
    /// Without the pages that a file backs, which the system can drop at any time: heap and stacks.
    /// All of it where the system does not tell them apart.
    pub heap_used_bytes: u64,
}

/// What the process holds of memory now.
///
/// From `/proc/self/status`: unlike `statm` it is not counted in pages, whose size differs between
/// machines and takes a system call to learn.
#[must_use]
pub fn memory() -> Option<Memory> {
    parse_memory(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Resident memory in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    Some(memory()?.resident_bytes)
}

/// Seconds of processor time that the process used, all threads together.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "seconds keep their nanoseconds for four months")]
pub fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Open file descriptors, without the one that this reading opens.
#[must_use]
pub fn open_fds() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

fn parse_memory(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let resident_bytes = bytes("VmRSS:")?;
    let heap_used_bytes = bytes("RssAnon:").unwrap_or(resident_bytes);
    Some(Memory { resident_bytes, heap_used_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        for (status, kibibytes) in [
            ("VmHWM:\t  9 kB\nVmRSS:\t   1234 kB\nRssAnon:\t 1 kB\n", Some((1234, 1))),
            ("VmRSS:\t   1234 kB\n", Some((1234, 1234))),
            ("VmHWM:\t9 kB\n", None),
            ("VmRSS:\t12 pages\n", None),
            ("VmRSS:\t18446744073709551615 kB\n", None),
        ] {
            let memory = kibibytes.map(|(resident, heap)| Memory {
                resident_bytes: resident * 1024,
                heap_used_bytes: heap * 1024,
            });
            assert_eq!(parse_memory(status), memory, "{status}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_files() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(cpu_seconds() > 0.0);
        assert!(open_fds().is_some_and(|fds| fds > 0));
    }
}
