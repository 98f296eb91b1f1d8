//! Other processes: which one a number stands for, when it ends, and asking it to end.
//!
//! Owns: telling a process from a later one of the same number. Refuses to know: what a process
//! does.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process of one boot. Numbers are given out again; with the instant of the start they are
/// not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u32,
    /// Which boot of the machine it belongs to.
    pub(crate) boot: String,
    /// When it was started, in the kernel's ticks since the boot. An `exec` does not change it.
    pub(crate) started: u64,
}

impl Process {
    /// The process that has this number now; `None` when there is none or it has ended and only
    /// its parent has not looked yet.
    pub(crate) fn now(pid: u32) -> Option<Process> {
        let started = started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Process { pid, boot: boot.trim().to_owned(), started })
    }

    /// True while this very process runs.
    pub(crate) fn runs(&self) -> bool {
        Process::now(self.pid).as_ref() == Some(self)
    }

    /// A handle on it; `None` when it runs no longer.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after the handle was taken: from here on the number cannot change hands.
        self.runs().then_some(Handle(fd))
    }
}

/// When the process was started; `None` for one that has ended, or for another text.
fn started(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, also blanks and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    // Fields are numbered from 1 and start here with 3; `starttime` is 22 (proc_pid_stat(5)).
    if has_ended { None } else { fields.get(22 - 3)?.parse().ok() }
}

/// One process, whatever becomes of its number.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl Handle {
    /// Asks it to end, with SIGTERM. One that has ended already is no error.
    pub(crate) fn terminate(&self) -> std::io::Result<()> {
        match pidfd_send_signal(&self.0, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// True when it has ended, now or within `limit`.
    pub(crate) fn ends_within(&self, limit: Duration) -> std::io::Result<bool> {
        let ready = wait_readable(&[self.as_fd()], Instant::now() + limit)?;
        Ok(ready[0])
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of them can be read, or until `deadline`; says of each whether it can. A handle
/// can be read when its process has ended.
pub(crate) fn wait_readable<const N: usize>(
    fds: &[BorrowedFd<'_>; N],
    deadline: Instant,
) -> std::io::Result<[bool; N]> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut polled = fds.each_ref().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
        match poll(&mut polled, Some(&limit)) {
            Ok(_) => return Ok(polled.map(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_no_process() {
        let this = Process::now(std::process::id()).unwrap();
        assert!(this.runs() && this.handle().is_some());
        let earlier = Process { started: this.started - 1, ..this.clone() };
        let other_boot = Process { boot: String::new(), ..this };
        for gone in [earlier, other_boot] {
            assert!(!gone.runs() && gone.handle().is_none());
        }
    }

    #[test]
    fn the_name_of_a_process_cannot_pose_as_its_fields() {
        let tail = " 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(started(&format!("7 (tai) S{tail}")), Some(4711));
        assert_eq!(started(&format!("7 (a) Z 1 (b) S{tail}")), Some(4711));
        for ended in [format!("7 (tai) Z{tail}"), "7 (tai) S 1 1".to_owned(), String::new()] {
            assert_eq!(started(&ended), None, "{ended}");
        }
    }
}
