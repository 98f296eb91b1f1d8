//! Figures about the machine, and about the part of it that this process may use.
//!
//! Owns: the reading and parsing of `/proc` and of control groups, version 1 and 2. Refuses to know
//! which metric shows them. A figure that the system does not give is `None`.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// The memory that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The least limit of its control groups, or the machine's memory where that is less.
    pub limit_bytes: u64,
    /// What can still be used within each of them. Cached files count as available, since the
    /// system drops them first.
    pub available_bytes: u64,
}

/// The memory of the machine, within the limits that this process has.
#[must_use]
pub fn memory() -> Option<Memory> {
    let machine = parse_machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups(&membership, Path::new(GROUPS));
    Some(groups.iter().filter_map(|group| group.memory()).fold(machine, Memory::within))
}

/// Tasks that ran or waited to, averaged over a minute.
#[must_use]
pub fn load1() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Processors that this process may use.
#[must_use]
pub fn cpus() -> Option<u64> {
    u64::try_from(std::thread::available_parallelism().ok()?.get()).ok()
}

/// The share that is free of what files and free space take on the file system of `path`, from 0 to
/// 1. What only the superuser may fill counts as neither, as in `df`.
#[must_use]
pub fn disk_free_ratio(path: &Path) -> Option<f64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    free_ratio(disk.f_blocks, disk.f_bfree, disk.f_bavail)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of blocks needs no last digit")]
fn free_ratio(blocks: u64, free: u64, available: u64) -> Option<f64> {
    let usable = blocks.checked_sub(free)?.checked_add(available)?;
    (usable > 0).then(|| available as f64 / usable as f64)
}

impl Memory {
    fn within(self, other: Memory) -> Memory {
        Memory {
            limit_bytes: self.limit_bytes.min(other.limit_bytes),
            available_bytes: self.available_bytes.min(other.available_bytes),
        }
    }
}

fn parse_machine(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { limit_bytes: bytes("MemTotal:")?, available_bytes: bytes("MemAvailable:")? })
}

/// A control group that may limit memory, by the names of its version.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    folder: PathBuf,
    limit: &'static str,
    used: &'static str,
    cached: &'static str,
}

impl Group {
    /// `None` where there is no limit, or no such group to be seen from here.
    fn memory(&self) -> Option<Memory> {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let limit_bytes = number(self.limit)?;
        let stat = read("memory.stat").unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(self.cached));
        let cached: u64 = cached.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let used = number(self.used)?.saturating_sub(cached);
        Some(Memory { limit_bytes, available_bytes: limit_bytes.saturating_sub(used) })
    }
}

/// The groups that `/proc/self/cgroup` names and all above them: each may have a limit of its own.
fn groups(membership: &str, mounted: &Path) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, limit, used, cached) = if controllers.is_empty() {
            (mounted.to_owned(), "memory.max", "memory.current", "inactive_file ")
        } else if controllers.split(',').any(|name| name == "memory") {
            let root = mounted.join("memory");
            (root, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        } else {
            continue;
        };
        let own = root.join(path.trim_start_matches('/'));
        // In a container the path may be one of the machine outside: what is not there is passed.
        let folders = own.ancestors().take_while(|folder| folder.starts_with(&root));
        groups.extend(folders.map(|folder| Group {
            folder: folder.to_owned(),
            limit,
            used,
            cached,
        }));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory_of(membership: &str, mounted: &Path) -> Memory {
        let machine = Memory { limit_bytes: 1000 * MIB, available_bytes: 700 * MIB };
        let groups = groups(membership, mounted);
        groups.iter().filter_map(Group::memory).fold(machine, Memory::within)
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn the_least_limit_on_the_way_up_holds() {
        let room = tempfile::tempdir().unwrap();
        let (outer, inner) = (room.path().join("a"), room.path().join("a/b"));
        write(&inner, &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        write(&outer, &[("memory.max", "104857600\n"), ("memory.current", "62914560\n")]);
        write(&outer, &[("memory.stat", "anon 1\ninactive_file 10485760\nactive_file 2\n")]);
        let memory = memory_of("0::/a/b\n", room.path());
        assert_eq!(memory, Memory { limit_bytes: 100 * MIB, available_bytes: 50 * MIB });
        let elsewhere = memory_of("0::/nowhere/at/all\n", room.path());
        assert_eq!(elsewhere, Memory { limit_bytes: 1000 * MIB, available_bytes: 700 * MIB });
    }

    #[test]
    fn the_first_version_of_control_groups_is_read_too() {
        let room = tempfile::tempdir().unwrap();
        let group = room.path().join("memory/x");
        write(&group, &[("memory.limit_in_bytes", "52428800\n")]);
        write(&group, &[("memory.usage_in_bytes", "52428800\n")]);
        write(&group, &[("memory.stat", "total_inactive_file 1048576\n")]);
        // Without a limit the first version shows a huge one.
        let root = room.path().join("memory");
        write(&root, &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        write(&root, &[("memory.usage_in_bytes", "52428800\n")]);
        let memory = memory_of("8:pids:/\n4:cpu,memory:/x\n0::/\n", room.path());
        assert_eq!(memory, Memory { limit_bytes: 50 * MIB, available_bytes: MIB });
    }

    #[test]
    fn the_machine_is_read_in_bytes() {
        let text = "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        let memory = Memory { limit_bytes: 2 * MIB, available_bytes: MIB };
        assert_eq!(parse_machine(text), Some(memory));
        assert_eq!(parse_machine("MemTotal: 2048 kB\n"), None);
        assert_eq!(parse_machine("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn what_is_kept_for_the_superuser_is_neither_free_nor_used() {
        for (blocks, free, available, ratio) in [
            (100, 50, 50, Some(0.5)),
            (100, 50, 0, Some(0.0)),
            (110, 20, 10, Some(0.1)),
            (0, 0, 0, None),
            (1, 2, 1, None),
        ] {
            assert_eq!(free_ratio(blocks, free, available), ratio, "{blocks} {free} {available}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory_load_processors_and_a_disk() {
        let memory = memory().unwrap();
        assert!(memory.available_bytes <= memory.limit_bytes && memory.limit_bytes > 0);
        assert!(load1().is_some_and(|load| load >= 0.0) && cpus().is_some_and(|cpus| cpus > 0));
        let ratio = disk_free_ratio(Path::new("/")).unwrap();
        assert!((0.0..=1.0).contains(&ratio));
        assert_eq!(disk_free_ratio(Path::new("/no/such/folder")), None);
    }
}
