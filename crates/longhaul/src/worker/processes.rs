//! Processes below one process: found in `/proc`, signalled, and taken away when they have ended.
//!
//! A process that this one is the subreaper of can leave its group and its session, but not its
//! ancestors: an orphan gets the subreaper for a parent. So what is below is complete, and when no
//! child is left there is nothing below at all.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};

use super::words::End;

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its process group.
    pub group: i32,
    /// Ended, and waiting to be taken away by its parent.
    pub zombie: bool,
    parent: i32,
    /// Together with the id tells it from every other process, earlier or later.
    began: u64,
}

/// What came of looking for ended children.
#[derive(Debug, Default)]
pub struct Reaped {
    /// Children that have ended, and how.
    pub ended: Vec<(Pid, End)>,
    /// No child is left, ended or not.
    pub none_left: bool,
}

/// Every process below `root`, parents before children, except `spared` and what is below those.
pub fn below(root: Pid, spared: &HashSet<Pid>) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        // Taken out, so that no circle of a table read while it changes can trap this loop.
        let next = children.remove(&parent.as_raw_nonzero().get()).unwrap_or_default();
        for process in next.into_iter().filter(|process| !spared.contains(&process.pid)) {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found
}

/// Sends a signal to exactly this process, not to a later one of the same id.
pub fn signal(process: &Process, signal: Signal) -> Result<(), Errno> {
    match send(process, signal) {
        Err(Errno::SRCH) => Ok(()),
        sent => sent,
    }
}

#[cfg(target_os = "linux")]
fn send(process: &Process, signal: Signal) -> Result<(), Errno> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let same = || look_up(process.pid).is_some_and(|now| now.began == process.began);
    match pidfd_open(process.pid, PidfdFlags::empty()) {
        Ok(handle) if same() => pidfd_send_signal(handle, signal),
        // An old kernel, or a sandbox that has no such handles.
        Err(Errno::NOSYS | Errno::PERM) if same() => kill_process(process.pid, signal),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn send(process: &Process, signal: Signal) -> Result<(), Errno> {
    kill_process(process.pid, signal)
}

/// Takes away every child that has ended.
pub fn reap() -> Reaped {
    let mut reaped = Reaped::default();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => reaped.ended.extend(end(status).map(|end| (pid, end))),
            Ok(None) => return reaped,
            Err(Errno::INTR) => {}
            Err(_) => {
                reaped.none_left = true;
                return reaped;
            }
        }
    }
}

/// Takes one child away if it has ended.
pub fn reap_one(pid: Pid) {
    // It may not have ended yet, or be somebody else's child: both are for a later look.
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
}

fn end(status: WaitStatus) -> Option<End> {
    let exited = status.exit_status().map(End::Exited);
    exited.or_else(|| status.terminating_signal().map(End::Signalled))
}

fn all() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| look_up(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?))
}

fn look_up(pid: Pid) -> Option<Process> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse(pid, &stat)
}

/// Reads one `stat`. Source: proc_pid_stat(5).
fn parse(pid: Pid, stat: &[u8]) -> Option<Process> {
    // The name stands in parentheses and may hold anything, parentheses included.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let began = fields.nth(16)?.parse().ok()?;
    Some(Process { pid, group, zombie: matches!(state, "Z" | "X"), parent, began })
}

/// Makes this process the one that its descendants' orphans get for a parent. Only Linux can.
#[cfg(target_os = "linux")]
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Elsewhere a process can escape, so nothing is run.
#[cfg(not(target_os = "linux"))]
pub fn become_subreaper() -> io::Result<()> {
    Err(io::Error::other("commands can be held together on Linux only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_the_fields_behind_it() {
        let pid = Pid::from_raw(7).unwrap();
        let stat = b"7 (a) Z 1 1 (x) S 5 6 6 0 -1 4194560 93 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let process = parse(pid, stat).unwrap();
        assert_eq!((process.parent, process.group, process.began), (5, 6, 4711));
        assert!(!process.zombie);
        for broken in [&b""[..], b"7", b"7 (a)", b"7 (a) S", b"7 (a) S x y z", b"7 (\xff) \xff 1"] {
            assert_eq!(parse(pid, broken), None);
        }
    }

    #[test]
    fn this_process_is_below_its_parent_and_can_be_spared() {
        let me = rustix::process::getpid();
        let parent = rustix::process::getppid().expect("tests have a parent");
        let is_me = |process: &Process| process.pid == me;
        assert!(below(parent, &HashSet::new()).iter().any(is_me));
        assert!(!below(parent, &HashSet::from([me])).iter().any(is_me));
    }
}
